"""Reading: other tools, ids, speed of layout; what is damaged is found and named, by verify and by reading."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest
import torch

from whylens import InputError, Model, Preprocess, load_images
from whylens.errors import DamageError
from whylens.run import schema
from whylens.run.audit import audit
from whylens.run.commit import Table, commit
from whylens.run.export import export
from whylens.run.plan import Plan, sealed
from whylens.run.read import Run, open_run
from whylens.run.verify import gc

COUNT = 200


def small_net() -> Model:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 8, 5, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net = torch.nn.Sequential(*layers, torch.nn.Linear(8, 3))
    return Model(net, preprocess=Preprocess((32, 32), 32), classes=["cat", "dog", "eel"], layer="1")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from PIL import Image

    folder = tmp_path_factory.mktemp("reading") / "ein Ordner"
    rng = np.random.default_rng(0)
    lines = ["path,label,line,weight,key"]
    for i in range(COUNT):
        path = folder / "photos" / f"{i % 7}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (33, 35, 3), dtype=np.uint8)).save(path)
        lines.append(f"photos/{i % 7}/{i}.png,{('cat', 'dog', 'cow')[i % 3]},{'AB'[i % 2]},{i / 8},k{i}")
    (folder / "list.csv").write_text("\n".join(lines), "utf-8")
    (folder / "photos" / "5" / "5.png").write_bytes(b"")
    return audit(small_net(), folder / "list.csv", out=folder / "the run", methods=["grad_cam", "saliency"])


@pytest.fixture
def copy(stored: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored.folder, tmp_path / "run"))


def data_file(folder: Path, family: str, shard: int = 0) -> Path:
    return next((folder / family).glob(f"{shard:08d}-*.parquet"))


# ---- read by other tools -----------------------------------------------------------------------------------------


def test_duckdb_and_polars_read_rows_maps_and_embeddings(stored: Run) -> None:
    rows, maps = ([str(p) for p in stored.files(family)] for family in ("rows", "maps"))
    found = duckdb.sql(
        f"select count(*), count(distinct image_id), sum(case when status = 'ok' then 1 end), avg(probability), "
        f'max(len("embedding.grad_cam")) from read_parquet({rows})'
    ).fetchall()
    table = stored.table(embeddings=True)
    sure = [p for p in table.column("probability").to_pylist() if p is not None]
    assert found[0][:3] == (COUNT, COUNT, COUNT - 1)
    assert found[0][3] == pytest.approx(np.mean(sure), rel=1e-6)
    assert found[0][4] == 8
    joined = duckdb.sql(
        f'select m."map.grad_cam", r."scale.grad_cam" from read_parquet({maps}) m '
        f"join read_parquet({rows}) r using (image_id) where image_id = 42"
    ).fetchall()
    own = np.frombuffer(joined[0][0], "<f2").reshape(7, 7).astype(np.float32) * np.float32(joined[0][1])
    assert np.array_equal(own, stored.maps("grad_cam", [42])[0, 0].numpy())
    frame = polars.read_parquet(rows).sort("image_id")
    assert frame.get_column("score.grad_cam").to_list() == table.column("score.grad_cam").to_pylist()
    assert frame.get_column("embedding.saliency").to_list() == table.column("embedding.saliency").to_pylist()
    assert polars.read_parquet(maps).height == COUNT


def test_the_users_columns_come_along(stored: Run) -> None:
    table = stored.table(["key", "line", "weight", "column.key", "uri"]).to_pylist()
    assert [row["line"] for row in table] == ["AB"[i % 2] for i in range(COUNT)]
    assert [row["weight"] for row in table] == [i / 8 for i in range(COUNT)]
    assert [row["column.key"] for row in table] == [f"k{i}" for i in range(COUNT)]
    assert table[9]["key"] == "photos/2/9.png"
    assert Path(table[9]["uri"]).is_file()
    assert stored.images.columns["key"] == tuple(f"k{i}" for i in range(COUNT))
    with pytest.raises(InputError, match="No column 'lien'"):
        stored.table(["lien"])


def test_ids_are_numbers_keys_or_slices(stored: Run) -> None:
    key = stored.table(["key"]).column("key")[17].as_py()
    one = stored.maps("saliency", 17)
    assert torch.equal(stored.maps("saliency", key), one)
    assert torch.equal(stored.maps("saliency", slice(10, 20))[7], one[0])
    assert torch.equal(stored.maps("saliency", [40, 17, 17])[1:], one.expand(2, -1, -1, -1))
    for wrong in (COUNT, -1, "no such key"):
        with pytest.raises(InputError, match="The run has no image"):
            stored.maps("saliency", wrong)
    with pytest.raises(InputError, match=r"No method in this run 'grad_cma'\. Did you mean 'grad_cam'"):
        stored.maps("grad_cma", 0)
    with pytest.raises(InputError, match=r"Image 5 has no grad_cam map: .*5.png"):
        stored.maps("grad_cam", 5)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_are_exported(stored: Run, tmp_path: Path, ending: str) -> None:
    file = export(stored, tmp_path / "deep" / f"rows.{ending}")
    if ending == "jsonl":
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    elif ending == "parquet":
        rows = polars.read_parquet(file).to_dicts()
    else:
        rows = polars.read_csv(file, separator="," if ending == "csv" else "\t").to_dicts()
    assert [row["image_id"] for row in rows] == list(range(COUNT))
    assert rows[9]["line"] == "B"
    assert rows[5]["status"] == "error"
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_rows_of_some_images_are_those_of_the_table(stored: Run) -> None:
    names = ["key", "prediction", "line", "score.grad_cam"]
    picked = [COUNT - 1, 5, 0, 5]
    assert stored.table_at(picked, names).to_pylist() == stored.table(names).take(picked).to_pylist()
    assert stored.table_at([], names).column_names == names
    key = stored.table(["key"]).column(0)[3].as_py()
    assert stored.table_at(key, ["image_id"]).to_pylist() == [{"image_id": 3}]
    with pytest.raises(InputError, match="nope"):
        stored.table_at([0], ["nope"])
    with pytest.raises(InputError, match="whole images, not objects"):
        stored.instances_at([0])


@pytest.mark.parametrize(
    ("what", "ending"),
    [("maps", "npz"), ("embeddings", "npz"), ("embeddings", "parquet"), ("maps", "safetensors")],
)
def test_maps_and_embeddings_are_exported(stored: Run, tmp_path: Path, what: Any, ending: str) -> None:
    file = export(stored, tmp_path / f"held.{ending}", what=what, method="grad_cam")
    if ending == "npz":
        held: Any = np.load(file)
    elif ending == "safetensors":
        from safetensors.numpy import load_file

        held = load_file(file)
    else:
        frame = polars.read_parquet(file)
        held = {name: np.array(frame.get_column(name).to_list()) for name in frame.columns}
    assert held["image_id"].tolist() == [i for i in range(COUNT) if i != 5]
    expected = stored.maps("grad_cam", [7]) if what == "maps" else stored.embeddings("grad_cam").tensor()[1][6:7]
    assert np.array_equal(held[what][6:7], expected.numpy())


def test_an_export_of_another_kind_is_refused(stored: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows go into \.csv"):
        export(stored, tmp_path / "rows.xml")
    with pytest.raises(InputError, match="name one method: grad_cam, saliency"):
        export(stored, tmp_path / "maps.npz", what="maps")


# ---- damage ------------------------------------------------------------------------------------------------------


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def read_all(folder: Path) -> None:
    run = open_run(folder)
    run.table(embeddings=True)
    for label in run.labels:
        list(run.embeddings(label))
        run.maps(label, [i for i in range(COUNT) if i != 5])


@pytest.mark.parametrize("family", ["rows", "maps"])
def test_a_flipped_bit_anywhere_is_found_by_verify_and_by_reading(stored: Run, copy: Path, family: str) -> None:
    path = data_file(copy, family, 1)
    whole = path.read_bytes()
    rng = random.Random(family)
    right = stored_values(stored)
    unseen = 0
    for _ in range(60):
        flip(path, rng.randrange(8 * len(whole)))
        found = open_run(copy).verify()
        assert [f.kind for f in found.found] == ["damaged"]
        assert found.found[0].file == f"{family}/{path.name}"
        said = damage(copy)
        if said is None:  # a bit that no value hangs on, such as one in a page's header: then every value must be right
            unseen += 1
            assert stored_values(open_run(copy)) == right
        else:
            assert path.name in said
        path.write_bytes(whole)
    assert unseen <= 3
    assert open_run(copy).verify().ok


def damage(folder: Path) -> str | None:
    try:
        read_all(folder)
    except DamageError as error:
        return str(error)
    return None


def stored_values(run: Run) -> list[Any]:
    ids = [i for i in range(COUNT) if i != 5]
    held = [run.maps(label, ids).numpy().tobytes() for label in run.labels]
    return [*held, run.table(embeddings=True).to_pylist()]


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("family", ["rows", "maps"])
def test_a_truncated_file_is_found(copy: Path, family: str, keep: float) -> None:
    path = data_file(copy, family)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    found = open_run(copy).verify()
    assert [(f.kind, f.file) for f in found.found] == [("damaged", f"{family}/{path.name}")]
    with pytest.raises(DamageError, match=path.name):
        read_all(copy)


def test_a_missing_file_a_missing_shard_and_foreign_files_are_named(copy: Path, stored: Run) -> None:
    gone = data_file(copy, "maps", 1)
    gone.unlink()
    (copy / "commit" / "00000" / "00000002.json").unlink()
    (copy / "rows" / "notes.parquet").write_bytes(b"PAR1")
    (copy / "holiday.jpg").write_bytes(b"x")
    (copy / "commit" / "00000" / "00000099.json").write_bytes(b"{}")
    stray = copy / "rows" / "00000000-0123456789ab.parquet"
    shutil.copy(data_file(copy, "rows"), stray)
    found = open_run(copy).verify()
    assert not found.ok
    kinds = {(f.kind, f.file) for f in found.found}
    assert {
        ("missing", f"maps/{gone.name}"),
        ("unfinished", "commit/00000/00000002.json"),
        ("foreign", "rows/notes.parquet"),
        ("foreign", "holiday.jpg"),
        ("foreign", "commit/00000/00000099.json"),
        ("leftover", f"rows/{stray.name}"),
    } <= kinds
    assert "NOT whole" in str(found)
    with pytest.raises(DamageError, match=f"{gone.name}' is missing"):
        open_run(copy).maps("grad_cam", [70])
    ids = open_run(copy).table().column("image_id").to_pylist()
    assert ids == [*range(128), *range(192, COUNT)]  # foreign files are not read
    assert gc(open_run(copy), older=3600, now=stray.stat().st_mtime + 10) == []
    assert f"rows/{stray.name}" in gc(open_run(copy), older=3600, now=stray.stat().st_mtime + 4000)
    assert (copy / "rows" / "notes.parquet").exists()


def test_a_record_or_file_put_in_anothers_place_is_found(copy: Path) -> None:
    records = copy / "commit" / "00000"
    shutil.copy(records / "00000000.json", records / "00000001.json")
    found = {(f.kind, f.file) for f in open_run(copy).verify().found}
    assert ("damaged", "commit/00000/00000001.json") in found
    shutil.copy(data_file(copy, "maps", 2), data_file(copy, "maps", 0))
    assert ("damaged", f"maps/{data_file(copy, 'maps', 0).name}") in {
        (f.kind, f.file) for f in open_run(copy).verify().found
    }


def test_a_torn_record_is_no_commit_and_is_made_again(copy: Path, stored: Run) -> None:
    record = copy / "commit" / "00000" / "00000001.json"
    record.write_bytes(record.read_bytes()[:50])
    assert open_run(copy).committed == COUNT - 64
    assert ("damaged", "commit/00000/00000001.json") in {(f.kind, f.file) for f in open_run(copy).verify().found}
    listed = Path(str(stored.plan.images["origin"]["data"][0]))
    run = audit(small_net(), listed, out=copy, methods=["grad_cam", "saliency"])
    assert run.verify().ok
    assert run.table(embeddings=True).equals(stored.table(embeddings=True))


def test_a_damaged_plan_is_found(copy: Path) -> None:
    part = next((copy / "plan").glob("*.parquet"))
    whole = part.read_bytes()
    rng = random.Random(0)
    for _ in range(100):
        flip(part, rng.randrange(8 * len(whole)))
        (found,) = open_run(copy).verify().found
        assert (found.kind, found.file) == ("damaged", f"plan/{part.name}")
        part.write_bytes(whole)
    flip(part, 8 * len(whole) - 200)
    with pytest.raises(DamageError, match="its footer is not what was written"):
        open_run(copy).table(["line"])
    part.unlink()
    with pytest.raises(DamageError, match="is missing"):
        open_run(copy).table(["line"])
    assert open_run(copy).verify().found[0].kind == "missing"


def test_no_links_and_no_keys_in_names(stored: Run, tmp_path: Path) -> None:
    assert not [p for p in stored.folder.rglob("*") if p.is_symlink()]
    frames = torch.rand(3, 3, 32, 32)
    images = load_images([f.permute(1, 2, 0).numpy() for f in frames])
    from dataclasses import replace

    odd = ["a/b/../c.png", "back\\slash:*?", "空/ü\n.png"]
    rows = tuple(replace(r, id=name, name=name) for r, name in zip(images._rows, odd, strict=True))
    run = audit(small_net(), replace(images, _rows=rows), out=tmp_path / "run")
    assert run.table(["key"]).column("key").to_pylist() == odd
    assert run.maps("grad_cam", odd[1]).shape == (1, 1, 7, 7)
    assert all(p.relative_to(run.folder).as_posix().isascii() for p in run.folder.rglob("*"))


# ---- large -------------------------------------------------------------------------------------------------------


def large(folder: Path, run: Run, rows: int, shard_rows: int) -> Run:
    """A run of `rows` images with made-up values, its files written by the commit rule."""
    plan = run.plan
    table = pa.table(
        {
            "image_id": pa.array(range(rows), pa.int64()),
            "key": [f"folder/{i}.png" for i in range(rows)],
            "uri": pa.nulls(rows, pa.string()),
            "label": pa.nulls(rows, pa.string()),
            "label_index": pa.nulls(rows, pa.int32()),
            "mask": pa.nulls(rows, pa.string()),
            "content": pa.nulls(rows, pa.string()),
            "target": pa.nulls(rows, pa.int32()),
        }
    )
    from dataclasses import replace

    from whylens.run.plan import write_images

    folder.mkdir()
    made = replace(plan, rows=rows, shard_rows=shard_rows, parts=write_images(folder, table, "0" * 12))
    (folder / "run.json").write_bytes(made.to_bytes())
    template = run.table(embeddings=True).slice(0, 1)
    rng = np.random.default_rng(0)
    for shard in range(made.shards):
        start, stop = made.bounds(shard)
        n = stop - start
        values = {}
        for field in schema.rows_schema(made.base):
            values[field.name] = template.column(field.name).combine_chunks().take(pa.array(np.zeros(n, np.int64)))
        values["image_id"] = pa.array(range(start, stop), pa.int64())
        values["embedding.grad_cam"] = schema.vectors(rng.random((n, 8), np.float32), np.ones(n, np.bool_))
        maps = {"image_id": values["image_id"]}
        for field in list(schema.maps_schema(made.base))[1:]:
            size = field.type.byte_width
            raw = (rng.integers(0, 2, (n, size // 2)) + np.arange(start, stop)[:, None] % 7).astype("<f2")
            maps[field.name] = pa.array([row.tobytes() for row in raw], field.type)
        commit(
            folder,
            "",
            shard,
            {
                "rows": Table(schema.table(schema.rows_schema(made.base), values), n),
                "maps": Table(schema.table(schema.maps_schema(made.base), maps), schema.MAPS_PER_GROUP),
            },
        )
    return open_run(folder)


def test_one_image_of_many_touches_one_row_group(stored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a map by id quick, without a clock: one group of one file, whatever the run's length."""
    run = large(tmp_path / "large", stored, 5000, 512)
    read: list[tuple[int, int]] = []
    plain: Callable[..., Any] = Run._group

    def noted(self: Run, part: Any, method: Any, shard: int, group: int) -> Any:
        read.append((shard, group))
        return plain(self, part, method, shard, group)

    monkeypatch.setattr(Run, "_group", noted)
    run.maps("grad_cam", [4321])
    assert read == [(8, (4321 - 8 * 512) // 16)]
    assert len(run.store.open) == 2  # its maps, and its rows for the scale
    assert run.verify().ok


def test_embeddings_stream_one_shard_at_a_time(stored: Run, tmp_path: Path) -> None:
    run = large(tmp_path / "large", stored, 3000, 512)
    lengths = [len(ids) for ids, _ in run.embeddings("grad_cam")]
    assert lengths == [512] * 5 + [440]
    ids, vectors = run.embeddings("grad_cam").tensor()
    assert ids.tolist() == list(range(3000))
    assert vectors.shape == (3000, 8)


def test_a_plan_survives_being_written_and_read(stored: Run) -> None:
    again = Plan.read(stored.folder)
    assert again.to_bytes() == stored.plan.to_bytes()
    said = json.loads(stored.plan.to_bytes())
    said.pop("sha256")
    assert sealed(said) == stored.plan.to_bytes()


def test_every_past_format_opens() -> None:
    """Written by the first version that wrote runs: six images, one broken, two methods, one of them added later."""
    run = open_run(Path(__file__).parents[1] / "fixtures" / "run-format-1")
    assert run.plan.format == 1
    assert run.verify().ok
    assert run.finished
    assert run.labels == ("grad_cam", "integrated_gradients:steps=2", "saliency")
    assert run.metrics == ("sparseness",)
    assert run.failures() == {"dog/5.png": "5.png is not an image in a known format."}
    row = run.table().to_pylist()[1]
    assert (row["key"], row["label"], row["prediction_index"]) == ("cat/2.png", "cat", 1)
    assert row["score.grad_cam"] == pytest.approx(-1.5127408504486084)
    assert row["metric.sparseness.grad_cam"] == pytest.approx(0.6531745195388794)
    assert float(run.maps("grad_cam", [0]).sum()) == pytest.approx(1.2112, abs=1e-4)
    assert float(run.embeddings("grad_cam").tensor()[1].sum()) == pytest.approx(5.1978, abs=1e-4)
    assert run.explanation("saliency", "dog/3.png").placements[0] is not None
    assert run.summary().judged == 5
