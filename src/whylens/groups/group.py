"""The verb group: a run's evidence → Groups."""

from __future__ import annotations

import json
import logging
from importlib import util
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from .._check import Range, checked
from .._files import file_name, write_atomic
from .._progress import track
from ..errors import DamageError, InputError, MissingExtra, WhylensError, no_such
from ..images import Images
from ..model import Model
from ..run.commit import Table, check_bytes, commit, records
from ..run.read import Run, open_run
from ..run.schema import COUNTS
from . import cluster, project
from .describe import Facts, columns_of
from .evidence import Per, Points, folder_of, points, region
from .grouping import FORMAT, Groups, State, latest, version_path
from .intervene import Tested, intervene
from .project import Layout
from .reason import evidence

log = logging.getLogger("whylens")

Array = NDArray[Any]
Within = Literal["class", "set"]

IMAGES = 64
"""Images of a group, and of others, on which it is tested."""

_LAYOUT = "layout"


def group(
    run: Run | str | Path,
    method: str | None = None,
    *,
    per: Per = "region",
    within: Within = "class",
    normalise: bool = True,
    components: Annotated[int, Range(1)] = project.COMPONENTS,
    tests: Annotated[int, Range(0)] = 12,
    seed: Annotated[int, Range(0)] = 0,
    name: str = "main",
    model: Model | None = None,
    images: Images | None = None,
    progress: bool = False,
) -> Groups:
    """Group the evidence of a run's method: which reasons the model has for each class, the odd ones first.

    One point per connected region of every map, or `per` "image"; grouped among images of one predicted class, or
    `within` the whole "set". Vectors (eq. 1) are scaled to length 1 unless not `normalise`, reduced to `components`
    by PCA and clustered there by HDBSCAN; t-SNE draws the picture. In classes with more than one reason at most
    `tests` groups are tested by intervening (`Tested`). The model and the photos are opened again where they are not
    given; `images` are all of the run's, for a run of images in memory. Objects of a detector are one point each, the
    map near their box, and are not tested by intervening.

    A run keeps groupings by `name`; one that is there is opened at its latest version. Raises InputError where it was
    made otherwise, where the run is not finished, or where nothing can be grouped.

    Source: SOXAI (Zeng et al. 2024), eq. 1, PCA to 50, t-SNE. Differs: the paper has one point per image, and groups
    are seen in the picture.
    """
    run = run if isinstance(run, Run) else open_run(run)
    label = _label(run, method)
    if run.of_objects:  # one point each; what is kept, removed or pasted has no meaning inside a box that is held fixed
        per, tests = "image", 0
        log.info("group: objects are not tested by intervening. act(run, group, 'mask') fills their evidence.")
    settings = {"method": label, "per": per, "within": within, "normalise": normalise, "components": components}
    settings |= {"tests": tests, "seed": seed}
    checked(group, {k: v for k, v in settings.items() if k != "method"}, "group")
    _need_extra()
    folder = folder_of(run) / file_name(name)
    if (folder / "grouping.json").exists():
        return _opened(run, folder, settings)
    facts = facts_of(run)
    found = _usable(points(run, label, per=per, model=model, images=images, progress=progress))
    reduced = _reduced(found, normalise, components)
    apart = facts.classes[found.image] if within == "class" else np.zeros(len(found), np.int64)
    # Two states of one kind of object lie close together, next to other kinds: the most persistent cluster is both.
    finest = run.of_objects
    labels = _within_classes(cluster.clusters(reduced, apart, finest=finest), facts.classes[found.image])
    said = {
        "format": FORMAT,
        "settings": settings,
        "stability": cluster.agreement(reduced, apart, labels, seed=seed, finest=finest),
        "points": len(found),
    }
    picture = project.layout(reduced, seed=seed, strata=facts.classes[found.image])
    said["trust"] = picture.trust
    state = State(labels, {}, {}, {}, "made")
    made = Groups(run, folder, 0, facts=facts, points=found, reduced=reduced, layout=picture, state=state, said=said)
    proofs = _tests(made, label, tests, seed, model, images, progress)
    _write(folder, found, picture, said)
    return made.keep(State(labels, {}, {}, proofs, "made"))


def open_groups(run: Run | str | Path, name: str = "main") -> Groups:
    """A grouping of a run at its latest version. Raises InputError where there is none of that name."""
    run = run if isinstance(run, Run) else open_run(run)
    folder = folder_of(run) / file_name(name)
    if not (folder / "grouping.json").exists():
        held = sorted(p.parent.name for p in folder_of(run).glob("*/grouping.json"))
        raise no_such("grouping in this run", name, held, f"Make one: whylens group '{run.folder}'.")
    return _opened(run, folder, None)


def facts_of(run: Run) -> Facts:
    """What a run's rows say of its images, by `image_id`, or of its objects."""
    if run.of_objects:
        return _facts_of_objects(run)
    table = run.table()
    known = table.column_names
    inside = next((c for c in known if c.startswith("metric.energy_inside")), None)
    own = [c for c in known if c not in _SAID and "." not in c]
    probability = table.column("probability").to_numpy(zero_copy_only=False)
    correct = table.column("correct").to_pylist()
    return Facts(
        keys=np.array(table.column("key").to_pylist(), object),
        classes=np.array([-1 if v is None else v for v in table.column("prediction_index").to_pylist()], np.int64),
        class_names=np.array([v or "" for v in table.column("prediction").to_pylist()], object),
        correct=np.array([np.nan if c is None else float(c) for c in correct]),
        probability=probability.astype(np.float64),
        inside=np.full(len(run), np.nan)
        if inside is None
        else table.column(inside).to_numpy(zero_copy_only=False).astype(np.float64),
        own=columns_of({c: table.column(c).to_pylist() for c in own}),
    )


_SAID = {
    "image_id", "key", "label", "label_index", "prediction", "prediction_index", "probability", "correct", "status",
    "error", "placement", "uri", "mask",
}  # fmt: skip


def _facts_of_objects(run: Run) -> Facts:
    objects, images = run.instances(), run.table()
    image = objects.column("image_id").to_numpy()
    own = [c for c in images.column_names if c not in (*_SAID, *COUNTS) and "." not in c]
    columns = columns_of({c: images.column(c).to_pylist() for c in own})
    known = np.array([n is not None for n in images.column("references").to_pylist()], np.bool_)[image]
    there = np.array([r is not None for r in objects.column("reference").to_pylist()], np.float64)
    incomplete = [np.nan if i is None else float(i) for i in objects.column("incomplete").to_pylist()]
    keys, numbers = objects.column("key").to_pylist(), objects.column("instance").to_pylist()
    return Facts(
        keys=np.array([f"{key} #{n}" for key, n in zip(keys, numbers, strict=True)], object),
        classes=objects.column("class_index").to_numpy().astype(np.int64),
        class_names=np.array(objects.column("class").to_pylist(), object),
        correct=np.where(known, there, np.nan),
        probability=objects.column("score").to_numpy().astype(np.float64),
        inside=np.full(len(objects), np.nan),
        own={name: values[image] for name, values in columns.items()},
        incomplete=np.array(incomplete),
        images=image,
    )


# ---- making it -------------------------------------------------------------------------------------------


def _need_extra() -> None:
    missing = next((name for name in ("sklearn", "hdbscan", "openTSNE") if util.find_spec(name) is None), None)
    if missing is not None:
        raise MissingExtra("Grouping", missing, "group")


def _label(run: Run, method: str | None) -> str:
    if method is not None:
        return run.method(method)[1].label
    with_features = [s.label for part in run.parts for s in part.methods if s.dim and s.label in part.keeps]
    if not with_features:
        raise InputError(f"group: no method of '{run.folder}' has embeddings. Audit with grad_cam.")
    return with_features[0]


def _usable(found: Points) -> Points:
    """Points that have a place: finite, and not zero."""
    good = np.isfinite(found.vectors).all(1) & (found.vectors != 0).any(1)
    if not good.all():
        log.warning("group: %d of %d points have no features and are left out.", (~good).sum(), len(good))
    if good.sum() < 2:
        raise InputError(f"group: two points or more are needed, and the maps of this run give {int(good.sum())}.")
    return found if good.all() else found.take(good.nonzero()[0])


def _reduced(found: Points, normalise: bool, components: int) -> Array:
    held = project.normalised(found.vectors) if normalise else found.vectors
    return project.pca(held, components).reduced(held)


def _within_classes(labels: Array, classes: Array) -> Array:
    """Groups that hold one class each: one over several falls apart along them."""
    grouped = labels >= 0
    made = np.full(len(labels), -1, np.int64)
    made[grouped] = np.unique(np.stack([labels, classes], 1)[grouped], axis=0, return_inverse=True)[1]
    return made


def _tests(
    made: Groups, label: str, most: int, seed: int, model: Model | None, images: Images | None, progress: bool
) -> dict[int, Tested]:
    """Proofs of the groups of classes that have more than one, rare ones first."""
    asked = [g for g in made if g.reasons > 1][:most]
    if not asked:
        return {}
    try:
        model = model or made.run.model()
        return {
            g.number: _proof(made, label, g.number, model, images, seed)
            for g in track(asked, total=len(asked), label="test", show=progress)
        }
    except WhylensError as error:
        log.warning("group: nothing is tested by intervening: %s", error)
        return {}


def _proof(made: Groups, label: str, number: int, model: Model, images: Images | None, seed: int) -> Tested:
    rows = (made.state.labels == number).nonzero()[0]
    rng = np.random.default_rng([seed, number])
    rows = np.sort(rng.permutation(rows)[:IMAGES])
    target = int(made.facts.classes[made.points.image[rows[0]]])
    ids = made.points.image[rows].tolist()
    frames = _frames(made.run, model, images, ids)
    maps = made.run.maps(label, ids)
    parts = [region(m, r) for m, r in zip(maps, made.points.region[rows].tolist(), strict=True)]
    right = (made.facts.correct == 1) | (np.isnan(made.facts.correct) & (made.facts.classes >= 0))
    others = (right & (made.facts.classes != target)).nonzero()[0]
    hosts = rng.permutation(others)[:IMAGES].tolist()
    held = _frames(made.run, model, images, hosts) if hosts else frames[:0]
    shown = evidence(made, model, frames, parts, number)
    return intervene(model, frames, shown, target, held, keys=ids, seed=seed)


def _frames(run: Run, model: Model, images: Images | None, ids: list[int]) -> torch.Tensor:
    held = run.images_at(ids) if images is None else [images[i] for i in ids]
    return torch.stack([model.prepare(photo.pixels, photo.orientation)[0] for photo in held])


# ---- the folder ------------------------------------------------------------------------------------------


def _write(folder: Path, found: Points, picture: Layout, said: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image_id": found.image,
            "region": found.region,
            "x": picture.at[:, 0],
            "y": picture.at[:, 1],
            "placed": picture.placed,
        }
    )
    commit(folder, "", 0, {_LAYOUT: Table(table, 65536)})
    write_atomic(folder / "grouping.json", json.dumps(said, indent=1).encode())


def _opened(run: Run, folder: Path, settings: dict[str, Any] | None) -> Groups:
    try:
        said = json.loads((folder / "grouping.json").read_text("utf-8"))
    except ValueError:
        raise DamageError(f"'{folder / 'grouping.json'}' is damaged.") from None
    if said["format"] > FORMAT:
        raise InputError(f"'{folder}' has format {said['format']}, newer than this whylens. Upgrade whylens.")
    for key, value in (settings or {}).items():
        if said["settings"][key] != value:
            raise InputError(
                f"group: '{folder.name}' was made with {key}={said['settings'][key]!r}, not {value!r}. "
                "Give the new one another name: name=."
            )
    kept = said["settings"]
    record = records(folder, "", 1).get(0)
    file = None if record is None else record.file(_LAYOUT)
    version = latest(folder)
    if file is None or not version:
        raise DamageError(f"'{folder}' is not whole. Remove it and group again.")
    check_bytes(folder / file.name, file)
    table = parquet.read_table(folder / file.name)
    found = _usable(points(run, kept["method"], per=kept["per"]))
    if not np.array_equal(found.image, table.column("image_id").to_numpy()):
        raise DamageError(f"'{folder}' was made of other points than the run has now. Remove it and group again.")
    at = np.stack([table.column("x").to_numpy(), table.column("y").to_numpy()], 1)
    return Groups(
        run,
        folder,
        version,
        facts=facts_of(run),
        points=found,
        reduced=_reduced(found, kept["normalise"], kept["components"]),
        layout=Layout(at, table.column("placed").to_numpy(), said["trust"]),
        state=State.read(version_path(folder, version)),
        said=said,
    )
