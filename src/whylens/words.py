"""Words: what figures and pages say about one row, in one spelling."""

from __future__ import annotations

import re
from html import escape

from .explanation import FLAGS, Explanation


def csv_text(text: str) -> str:
    """A CSV cell that no table program takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def number(value: float) -> str:
    """Two digits, with a real minus sign."""
    return f"{value:.2g}".replace("-", "−", 1) if value < 0 else f"{value:.2g}"


def share(value: float) -> str:
    """A probability in three digits; never 0 or 1 where it is only close to that."""
    if 0 < value < 0.001:
        return "< 0.001"
    return "> 0.999" if 0.999 < value < 1 else f"{value:.3g}"


def score_words(explanation: Explanation, row: int) -> str:
    """Probability and score of a row's target."""
    probability, score = float(explanation.probabilities[row]), float(explanation.scores[row])
    said = [] if probability != probability else [f"probability {share(probability)}"]
    if explanation.score_kind != "probability" or not said:
        kind = "score" if explanation.score_kind == "function" else explanation.score_kind.replace("_", " ")
        said.append(f"{kind} {score:.3g}".replace("-", "−", 1))
    return ", ".join(said)


def cost_words(explanation: Explanation) -> str:
    """Passes per image, as if the method ran alone, and seconds of all images."""
    cost = explanation.cost
    passes = [counted(cost[k], k.removesuffix("s")) for k in ("forwards", "backwards") if k in cost]
    said = [f"{' and '.join(passes)} per image"] if passes else []
    said += [f"{cost['seconds']:.3g} s in all"] if "seconds" in cost else []
    return ", ".join(said) or "cost not recorded"


def flag_words(name: str) -> str:
    """A flag and what it means."""
    words = name.replace("_", " ")
    return f"{words}: {FLAGS[name]}" if name in FLAGS else words


def failure_words(name: str, reason: str) -> str:
    """An image and why it failed; the reason often names it already."""
    return reason if name in reason else f"{name}: {reason}"


def html_text(text: str) -> str:
    """Safe in HTML, in text and in attributes; control characters are left out, broken ones replaced."""
    return escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).encode("utf-8", "replace").decode())


def counted(value: float, what: str) -> str:
    """A number of things: "1 group", "2 groups"."""
    return f"{value:g} {what}" if value == 1 else f"{value:g} {what}s"
