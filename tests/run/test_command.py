"""The commands that work on runs: by exit code, files and text; killed half-way and started again."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import NETS
from whylens.run.read import open_run

COUNT = 2000
BROKEN = 20

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 small photos in class folders, 1 % of them broken, in a folder with a space; the net beside them."""
    folder = tmp_path_factory.mktemp("commands") / "my data"
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
    for i in range(COUNT):
        path = folder / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        if i % (COUNT // BROKEN) == 7:
            path.write_bytes(b"\x89PNG broken")
        else:
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, compress_level=0)
    (folder / "nets.py").write_text(NETS, "utf-8")
    return folder


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    model = f"{data / 'nets.py'}:model"
    return ["audit", str(data / "photos"), "--model", model, "--out", str(out), "--device", "cpu", *more]


def started(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "whylens", *words], **pipes, **options)


def commits(out: Path) -> int:
    return len(list((out / "commit").rglob("[0-9]*.json")))


@pytest.fixture(scope="module")
def uninterrupted(data: Path) -> Path:
    out = data / "never killed"
    with started(arguments(data, out, "--workers", "1", "--method", "grad-cam", "--method", "saliency")) as process:
        said, error = process.communicate(timeout=300)
    assert process.returncode == 3, error
    assert f"{BROKEN} failed" in said
    assert "cat/107.png" not in said or "is not an image" in said
    return out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_half_way_and_started_again(data: Path, uninterrupted: Path, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "killed"
    words = arguments(data, out, "--workers", workers, "--method", "grad-cam", "--method", "saliency")
    with started(words) as process:
        while commits(out) < 12:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = {p.name: p.read_bytes() for p in (out / "commit" / "00000").glob("*.json")}
    assert 12 <= len(kept) < 32
    half = open_run(out)
    assert 0 < half.committed < COUNT
    assert not half.verify().ok
    assert {f.kind for f in half.verify().found} <= {"unfinished", "leftover"}
    with started(words) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 3, error
    run, whole = open_run(out), open_run(uninterrupted)
    assert run.verify().ok
    assert run.table(["image_id"]).column(0).to_pylist() == list(range(COUNT))
    assert run.table(embeddings=True).equals(whole.table(embeddings=True))
    fine = [row["image_id"] for row in whole.table(["image_id", "status"]).to_pylist() if row["status"] == "ok"]
    for label in whole.labels:
        assert run.maps(label, fine).equal(whole.maps(label, fine))
    for name, record in kept.items():  # what stood when it was killed still stands, as it was
        assert (out / "commit" / "00000" / name).read_bytes() == record


def test_a_worker_that_is_killed_is_replaced(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed worker"
    words = arguments(data, out, "--workers", "2", "--method", "grad-cam", "--method", "saliency")
    with started(words) as process:
        while commits(out) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        workers = [int(word) for word in children.stdout.split()]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 3, error
    assert open_run(out).verify().ok
    assert open_run(out).table(embeddings=True).equals(open_run(uninterrupted).table(embeddings=True))


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """A real refusal of the kernel: no file may grow beyond 100 kB, more than the plan has and less than a shard."""
    out = tmp_path / "full"
    words = arguments(data, out, "--workers", "1", "--method", "saliency", "--shard-rows", "1024", "--store", "full")

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with started(words, preexec_fn=small) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 2, error
    assert "cannot be written: File too large. The 0 images committed are kept; the same command goes on" in error
    assert "Traceback" not in error
    left = open_run(out).verify()
    assert {f.kind for f in left.found} == {"unfinished"}
    with started(words) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 3, error
    run = open_run(out)
    assert run.verify().ok
    assert run.table(["image_id"]).column(0).to_pylist() == list(range(COUNT))


def wilson(hits: int, n: int) -> tuple[float, float]:
    z, p = 1.959963984540054, hits / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def test_the_summary_names_what_failed(data: Path, uninterrupted: Path, command: Command) -> None:
    said = command(*arguments(data, uninterrupted), "--method", "grad_cam", "--json")
    assert said.code == 3
    told = json.loads(said.out)
    assert told["failed"] == BROKEN
    assert set(told["failures"]) == {f"{('cat', 'dog')[i % 2]}/{i}.png" for i in range(7, COUNT, COUNT // BROKEN)}
    assert all(reason for reason in told["failures"].values())
    assert told["judged"] == COUNT - BROKEN
    rows = open_run(uninterrupted).table(["label_index", "prediction_index", "status"]).to_pylist()
    hits = sum(row["label_index"] == row["prediction_index"] for row in rows if row["status"] == "ok")
    low, high = wilson(hits, COUNT - BROKEN)
    assert told["accuracy"]["value"] == pytest.approx(hits / (COUNT - BROKEN))
    assert (told["accuracy"]["low"], told["accuracy"]["high"]) == pytest.approx((low, high), abs=1e-9)
    assert sum(map(sum, told["confusion"])) == COUNT - BROKEN


def test_audit_toml_repeats_the_run(data: Path, uninterrupted: Path, tmp_path: Path, command: Command) -> None:
    file = uninterrupted / "audit.toml"
    said = tomllib.loads(file.read_text("utf-8"))
    assert said["data"] == [str(data / "photos")]
    assert [m["name"] for m in said["method"]] == ["grad_cam", "saliency"]
    again = command("audit", "--config", file, "--out", tmp_path / "again", "--workers", "2")
    assert again.code == 3
    first, second = open_run(uninterrupted), open_run(tmp_path / "again")
    assert second.table(embeddings=True).equals(first.table(embeddings=True))
    words = (tmp_path / "again" / "audit.toml").read_text("utf-8")
    assert words == file.read_text("utf-8")
    refused = command("audit", "--config", file, "--out", tmp_path / "again", "--seed", "3")  # said here wins
    assert refused.code == 2
    assert "made with seed 0. Got 3" in refused.err


def test_verify_measure_export_gc_and_report(data: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "a run"
    few = tmp_path / "few.csv"
    names = [f"{('cat', 'dog')[i % 2]}/{i}" for i in range(100)]
    few.write_text(
        "path,label,lot\n" + "".join(f"{data}/photos/{n}.png,{n[:3]},{i % 4}\n" for i, n in enumerate(names))
    )
    made = command("audit", few, "--model", f"{data / 'nets.py'}:model", "--out", out, "--metric", "sparseness")
    assert made.code == 3
    assert "metric.sparseness.grad_cam: mean" in made.out
    assert command("verify", out).out.startswith("whole: 2 of 2 shards, 100 rows")
    assert json.loads(command("verify", out, "--json").out)["ok"] is True
    added = command("measure", out, "--metric", "energy_inside")
    assert added.code == 2
    assert "mask" in added.err
    rows = command("export", out, "--out", tmp_path / "rows.csv")
    assert rows.code == 0
    assert "lot" in (tmp_path / "rows.csv").read_text("utf-8").splitlines()[0]
    (out / "rows" / "00000000-aaaaaaaaaaaa.parquet").write_bytes(b"half")
    assert command("gc", out).out.startswith("removed 0 files")
    assert command("gc", out, "--older-than", "0").out.splitlines()[1:] == ["rows/00000000-aaaaaaaaaaaa.parquet"]
    page = command("report", out, "--out", tmp_path / "report.html")
    assert page.code == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Accuracy" in text
    assert "7.png" in text
    file = next((out / "maps").iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    broken = command("verify", out)
    assert broken.code == 2
    assert f"maps/{file.name}" in broken.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["audit"], "name the images"),
        (["audit", "no such folder"], "does not exist"),
        (["audit", "--config", "missing.toml"], "no file 'missing.toml'"),
        (["audit", ".", "--workers", "many"], "workers must be 'auto' or an integer"),
        (["audit", ".", "--seed", "-1"], "--seed must be an integer >= 0"),
        (["verify", "nowhere"], "holds no run"),
        (["measure", "nowhere", "--metric", "sparseness"], "holds no run"),
        (["export", "nowhere", "--out", "x.csv"], "holds no run"),
        (["gc", "nowhere"], "holds no run"),
        (["report", "nowhere"], "holds no run"),
    ],
)
def test_wrong_requests(
    words: list[str], says: str, place: Path, monkeypatch: pytest.MonkeyPatch, refused: Command
) -> None:
    monkeypatch.chdir(place)
    assert says in refused(*words)


def test_a_wrong_config_is_named(tmp_path: Path, refused: Command) -> None:
    file = tmp_path / "audit.toml"
    file.write_text("seeed = 1", "utf-8")
    assert "No setting 'seeed'. Did you mean 'seed'?" in refused("audit", "--config", file)
    file.write_text("seed = ", "utf-8")
    assert "cannot be read" in refused("audit", "--config", file)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("method = 5", "a method is a word or a table with a name. Got 5"),
        ("metric = 5", "a metric is a word or a table with a name. Got 5"),
        ("method = [{nam = 'x'}]", "a method is a word or a table with a name"),
        ("method = {name = 'grad_cam', params = 3}", "the params of grad_cam must be a table. Got 3"),
        ("method = 'grad-cma'", "No method 'grad_cma'. Did you mean 'grad_cam'?"),
        ("workers = 1.5", "workers must be 'auto' or an integer >= 1. Got 1.5"),
        ("masks = 3", "masks must be a folder"),
    ],
)
def test_a_config_of_other_kinds_is_one_sentence(
    line: str, says: str, place: Path, tmp_path: Path, refused: Command
) -> None:
    file = tmp_path / "audit.toml"
    file.write_text(f"data = '{place}'\nmodel = '{place / 'nets.py'}:model'\n{line}", "utf-8")
    assert says in refused("audit", "--config", file, "--out", tmp_path / "run")


def test_a_config_may_name_one_method_in_a_word(place: Path, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "audit.toml"
    photo, net = place / "föto 1.png", place / "nets.py"  # other tests may put broken photos beside it
    file.write_text(f"data = '{photo}'\nmodel = '{net}:model'\nmethod = 'layer-cam'", "utf-8")
    assert command("audit", "--config", file, "--out", tmp_path / "run").code == 0
    assert open_run(tmp_path / "run").labels == ("layer_cam",)
