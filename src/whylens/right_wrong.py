"""Right and wrong: values of a run by method, split by right and wrong predictions; said, drawn and written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ._files import prepare_folder, write_atomic
from .errors import InputError, no_such
from .interval import Interval, plain, wilson
from .separation import FEWEST, Separation
from .words import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FORMAT = 1
"""Of gap.json."""

CONFIDENCE = "probability"
"""What the values are held against: the probability of the prediction, which needs no label."""

LISTED = ("image_id", "key", "label", "prediction", "probability", "correct", "half")
"""Columns of the rows, before those of the methods."""


@dataclass(frozen=True, eq=False, repr=False)
class Gap:
    """Values of one metric by method, split by right and wrong predictions.

    `separations` hold the figures of each method, `confidence` those of the predicted probability, which needs no
    label. `lead` is the area of the method that separates best less that of the second. `left_out` counts the images
    that are not judged, by reason; `other_class` the maps that explain another class than the predicted one, by
    method. `rows` is an Arrow table of the images judged, with one column ``value.LABEL`` per method and `half`, the
    half of the threshold they were in: "choose" or "judge".
    """

    run: str
    metric: str
    seed: int
    separations: tuple[Separation, ...]
    confidence: Separation
    lead: Interval | None
    left_out: Mapping[str, int]
    other_class: Mapping[str, int]
    rows: pa.Table

    def __repr__(self) -> str:
        best = self.best
        said = "no gap" if best is None else f"{best.label} separates best, AUROC {best.auroc}"
        return f"Gap('{self.run}', {self.metric}, {self.rows.num_rows} images: {said})"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __getitem__(self, label: str) -> Separation:
        """The figures of one method."""
        for found in self.separations:
            if found.label == label:
                return found
        known = [found.label for found in self.separations]
        raise no_such("method in this gap", label, known, f"It holds: {', '.join(known)}.")

    @property
    def best(self) -> Separation | None:
        """The method with a gap whose area is largest; None where no method has one."""
        return largest([found for found in self.separations if found.verdict == "gap"])

    def values(self, label: str) -> NDArray[Any]:
        """The values ``(N,)`` of one method in the order of `rows`; NaN where it has none."""
        return values_of(self.rows, self[label].label)

    def suspicious(self, label: str | None = None) -> pa.Table:
        """The rows whose value lies below the threshold of a method, lowest first.

        The default is the method that separates best; without any, or without a threshold, there are none.
        """
        found = self.best if label is None else self[label]
        if found is None or found.threshold is None:
            return pa.table({**{n: [] for n in LISTED}, "value": pa.array([], pa.float64())})
        values = values_of(self.rows, found.label)
        listed = self.rows.select(LISTED).append_column("value", pa.array(values))
        return listed.filter(pa.array(values < found.threshold.value)).sort_by("value")

    # ---- in words ----------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """What may be said, in sentences."""
        n, right = self.rows.num_rows, int(pc.sum(self.rows.column("correct")).as_py() or 0)
        yield f"{n} images: {right} right, {n - right} wrong (accuracy {wilson(right, n)})"
        yield from (f"left out, {why}: {count}" for why, count in self.left_out.items())
        yield from (
            f"{label}: {count} maps explain another class than the predicted one" for label, count in
            self.other_class.items()
        )  # fmt: skip
        for found in self.separations:
            if found.verdict == "too few":
                yield (
                    f"{found.label}: too few to say: {found.right} right and {found.wrong} wrong have a value, and "
                    f"{FEWEST} of each are needed"
                )
            elif found.verdict == "no gap":
                yield f"{found.label}: no gap: the interval of its AUROC {found.auroc} holds 0.5"
            elif found.verdict == "reversed":
                yield f"{found.label}: reversed: wrong predictions have the higher values, AUROC {found.auroc}"
        yield from self._best_lines()
        yield f"for comparison, the probability of the prediction, which needs no label: AUROC {self.confidence.auroc}"

    def _best_lines(self) -> Iterator[str]:
        best = self.best
        if best is None:
            yield f"No method shows a gap in {self.metric}: nothing is called suspicious."
            return
        told = f"{best.label} separates best: AUROC {best.auroc}"
        if self.lead is not None:
            ahead = "ahead of the second by" if self.lead.low > 0 else "not told apart from the second: difference"
            told += f", {ahead} {self.lead}"
        yield told
        cut = best.threshold
        if cut is not None:
            yield (
                f"kept where {self.metric} >= {cut.value:.4g}, chosen on {cut.chosen_on} images and judged on the "
                f"{cut.kept.n} others: {cut.kept} of them are kept; of those kept {cut.accuracy} are right, of all "
                f"{cut.before}; {cut.right_kept} of the right are kept, {cut.wrong_rejected} of the wrong rejected"
            )
            yield f"{self.suspicious().num_rows} of {best.right + best.wrong} images lie below that threshold"

    def table(self) -> list[dict[str, Any]]:
        """One row per method, the comparison last, as text for a terminal."""
        return [
            {
                "method": found.label,
                "right": found.right,
                "wrong": found.wrong,
                "median right": f"{found.median_right:.4g}",
                "median wrong": f"{found.median_wrong:.4g}",
                "difference": str(found.difference),
                "AUROC": str(found.auroc),
                "KS": f"{found.ks:.3f} (p {found.ks_p:.2g})",
                "verdict": found.verdict,
            }
            for found in (*self.separations, self.confidence)
        ]

    def thresholds(self) -> list[dict[str, Any]]:
        """The thresholds, one row per method that has one, as text for a terminal."""
        return [
            {
                "method": found.label,
                "threshold": f"{found.threshold.value:.4g}",
                "judged on": found.threshold.kept.n,
                "accuracy of all": str(found.threshold.before),
                "accuracy of kept": str(found.threshold.accuracy),
                "kept": str(found.threshold.kept),
                "right kept": str(found.threshold.right_kept),
                "wrong rejected": str(found.threshold.wrong_rejected),
            }
            for found in (*self.separations, self.confidence)
            if found.threshold is not None
        ]

    # ---- written -----------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not a number is null."""
        said = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("run", "metric", "seed", "left_out", "other_class")},
            "images": self.rows.num_rows,
            "best": None if self.best is None else self.best.label,
            "lead": None if self.lead is None else asdict(self.lead),
            "methods": {found.label: _said(found) for found in self.separations},
            "confidence": _said(self.confidence),
            "suspicious": self.suspicious().num_rows,
            "lines": list(self.lines()),
        }
        made: dict[str, Any] = plain(said)
        return made

    def figure(self) -> tuple[Figure, Axes]:
        """Box plots and histograms of the right and the wrong, method by method; with the first histogram's axes."""
        from .spread import spread

        panels = [(found, values_of(self.rows, found.label)) for found in self.separations]
        correct = self.rows.column("correct").to_numpy(zero_copy_only=False)
        return spread(panels, correct, self.metric)

    def save(self, out: str | Path) -> Path:
        """Write the folder `out`: ``gap.png``, ``gap.csv`` with the suspicious images, and ``gap.json``, the last."""
        folder = prepare_folder(Path(out))
        held = BytesIO()
        self.figure()[0].savefig(held, format="png")
        try:
            write_atomic(folder / "gap.png", held.getvalue())
            write_atomic(folder / "gap.csv", _as_csv(self.suspicious()))
            write_atomic(folder / "gap.json", json.dumps(self.as_dict(), indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise InputError(f"Cannot write to '{folder}': {error.strerror or error}. Give another --out.") from None
        return folder


def values_of(rows: pa.Table, label: str | None = None) -> NDArray[Any]:
    """A method's values ``(N,)``, or the probabilities; NaN where there are none."""
    column = rows.column(CONFIDENCE if label is None else f"value.{label}")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def largest(found: Sequence[Separation]) -> Separation | None:
    """The one whose area is largest; None of none."""
    return max(found, key=lambda one: one.auroc.value, default=None)


def _said(found: Separation) -> dict[str, Any]:
    return {**asdict(found), "verdict": found.verdict}


def _as_csv(table: pa.Table) -> bytes:
    """Lines with a heading; text that a spreadsheet would take for a formula gets a quote in front."""
    text = StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(table.column_names)
    for row in table.to_pylist():
        out.writerow(csv_text(value) if isinstance(value, str) else value for value in row.values())
    return text.getvalue().encode()
