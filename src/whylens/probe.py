"""Probe: what a method may ask of one batch, one model and one target per image: scores and gradients, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from . import excitation, rules
from ._state import as_found, own_precision
from .calls import tensors
from .engine import Expand, Make, Read, Take, Work, memory_layout
from .errors import InputError
from .layers import FeatureLayer
from .model import Model
from .passes import ROWS_PER_PASS, Baseline, Passes, Trace

Score = Literal["auto", "logit", "probability", "log_odds"]
Kind = Literal["probability", "score", "decision"]


@dataclass
class Cost:
    """Passes per image: as if the method ran alone."""

    forwards: int = 0
    backwards: int = 0
    asked: set[Any] = field(default_factory=set)

    def add(self, key: Any, forwards: int = 0, backwards: int = 0) -> None:
        """Count once per key."""
        if key not in self.asked:
            self.asked.add(key)
            self.forwards += forwards
            self.backwards += backwards


class Probe:
    """One batch, one model, one target per image: what a method may ask.

    `index` is the target ``(N,)``; with `function` (``output -> (N,)``) the score is its value instead.
    """

    def __init__(
        self,
        passes: Passes,
        index: Tensor | None,
        *,
        function: Callable[[Any], Tensor] | None = None,
        layer: str | nn.Module | None = None,
        score: Score = "auto",
        cache: dict[Any, Tensor] | None = None,
    ) -> None:
        self.passes, self.index, self.function, self.cost = passes, index, function, Cost()
        self.model, self.frames = passes.model, passes.frames
        self.score_kind = score_kind(self.model, score)
        self._layer, self._cache = layer, {} if cache is None else cache

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, layer: str | nn.Module | None) -> Probe:
        """The same batch and target with this feature layer, sharing every pass; its cost is counted anew."""
        return Probe(
            self.passes, self.index, function=self.function, layer=layer, score=self.score_kind, cache=self._cache
        )

    def alone(self, n: int) -> Probe:
        """Image `n` of the batch with passes of its own: what is found there depends on no other image."""
        passes = Passes(self.model, self.frames[n : n + 1], precision=self.passes.engine.precision)
        index = None if self.index is None else self.index[n : n + 1]
        return Probe(passes, index, function=self.function, layer=self._layer, score=self.score_kind)

    # ---- scores ------------------------------------------------------------------------------------------

    @property
    def output(self) -> Any:
        """What the net returned."""
        self.cost.add("forward", forwards=1)
        return self.passes.trace().output

    @property
    def score(self) -> Tensor:
        """The target's score ``(N,)``."""
        return self._score(self.output).detach()

    @property
    def probability(self) -> Tensor:
        """The target's probability ``(N,)``; not a number where the target is a function."""
        return self._probability(self.output)

    def at_baseline(self, baseline: Baseline, *, record: bool = False) -> tuple[Tensor, Tensor]:
        """Score and probability ``(N,)`` of the target where every image is replaced by the baseline."""
        self.cost.add(("reference", baseline.name), forwards=1)
        output, _ = self.passes.reference(baseline, record)
        return self._score(output).detach().expand(len(self)), self._probability(output).expand(len(self))

    # ---- gradients ---------------------------------------------------------------------------------------

    def input_gradient(self, rule: rules.Rule = "plain", baseline: Baseline | None = None) -> Tensor:
        """Gradient of the score with respect to the frames ``(N, C, H, W)`` under a backward rule.

        "rescale" needs the baseline it compares with.
        """
        key = ("input", rule, None if baseline is None else baseline.name)
        self.cost.add("forward", forwards=1)
        self.cost.add(key, backwards=1)
        if key not in self._cache:
            trace = self.passes.trace(to_input=True)
            if rule == "rescale":
                if baseline is None:
                    raise InputError("input_gradient: the rescale rule needs a baseline.")
                rules.pair(trace.switch, self.passes.reference(baseline, record=True)[1])
            if trace.leaf is None:
                raise InputError("input_gradient: no graph reaches the frames.")
            self._cache[key] = self._gradient(trace.leaf, trace, rule)
        return self._cache[key]

    def rule_hits(self) -> tuple[int, int]:
        """Rectifiers that the guided and deconv rules changed, and all nonlinear calls of the net."""
        return self.passes.trace(to_input=True).switch.hits()

    @property
    def layer(self) -> FeatureLayer:
        """The feature layer in force."""
        return self.model.layer(self._layer, tuple(self.frames.shape[1:]))

    def activation(self) -> Tensor:
        """The feature layer's output as a grid ``(N, K, h, w)``."""
        layer = self.layer
        self.cost.add("forward", forwards=1)
        return layer.grid(self.passes.trace(layer=layer.name).activations[layer.name].detach()).float()

    def activation_gradient(self) -> Tensor:
        """Gradient of the score with respect to the feature layer's output, as a grid ``(N, K, h, w)``."""
        layer = self.layer
        key = ("activation", layer.name)
        self.cost.add("forward", forwards=1)
        self.cost.add(key, backwards=1)
        if key not in self._cache:
            trace = self.passes.trace(layer=layer.name)
            self._cache[key] = self._gradient(trace.activations[layer.name], trace, "plain")
        return layer.grid(self._cache[key])

    def handed_down(self, rule: excitation.Excitation, contrasts: Sequence[bool] = (False,)) -> list[Tensor]:
        """Shares of the target at the feature layer, as grids ``(N, K, h, w)``: what excites it, or with a contrast
        what speaks against it."""
        layer = self.layer
        self.cost.add("forward", forwards=1)
        self.cost.add(object(), forwards=1, backwards=len(contrasts))
        with own_precision(self.model.net), torch.enable_grad():
            trace = self.passes.under(rule, layer.name)
            at, output = trace.activations[layer.name], trace.output
            made = tensors(output) if self.function is not None else [self.model.scores(output)]
            value = self._score(output) if self.index is None else made[0].gather(1, self.index[:, None])[:, 0]
            if not value.requires_grad:
                self._refuse_cut_gradient()
                return [layer.grid(torch.zeros_like(at)).float()] * len(contrasts)
            outputs, start = excitation.prior(value, made)
            found = [excitation.hand_down(outputs, start, at, contrast=c) for c in contrasts]
        self.passes.count(backwards=len(contrasts) * len(self))
        return [layer.grid(shares).float() for shares in found]

    def path_gradient(self, point: Callable[[int], Tensor], weights: Sequence[float]) -> Tensor:
        """``sum_k weights[k] * d score / d frame`` at the moved frames ``point(k)`` ``(N, C, H, W)``.

        In micro-batches: memory does not grow with the number of points.
        """
        total = torch.zeros_like(self.frames, dtype=torch.float32)
        together = max(1, ROWS_PER_PASS // len(self))
        for start in range(0, len(weights), together):
            steps = range(start, min(start + together, len(weights)))
            gradient = self._gradient_at(torch.cat([point(k) for k in steps]), len(steps))
            for k, part in zip(steps, torch.split(gradient, len(self)), strict=True):
                total += weights[k] * part
        self.cost.add(object(), forwards=len(weights), backwards=len(weights))
        return total

    @property
    def classes(self) -> int:
        """How many classes the model has."""
        return int(self.model.scores(self.output).shape[1])

    def probability_of(self, frames: Tensor) -> Tensor:
        """The target's probability of other frames ``(N, C, H, W)``, one per image, without gradients."""
        images = torch.arange(len(self), device=self.frames.device)
        self.cost.add(object(), forwards=1)
        return self.passes.engine.plain(frames.to(self.frames), images, self._probability_rows)

    def looks(
        self,
        count: int,
        make: Make,
        *,
        take: Take | None = None,
        images: Tensor | None = None,
        kind: Kind | Read = "probability",
    ) -> Tensor:
        """Scores ``(A, count)`` of `count` looks at each image, or at those numbered in `images` ``(A,)``, float32.

        ``make(n, looks)`` gives the rows ``(B, C, H, W)`` of some looks at image n; ``take(n, looks, gradient)`` gets
        the gradient of each row's score with respect to the row. `kind` is the target's probability, its score, or a
        function of what the net returned for rows of the images ``(B,)``. An image's rows never share a pass with
        another's, so its scores are the same to the bit in any batch.
        """
        images = torch.arange(len(self)) if images is None else images
        before = self.passes.engine.backwards
        scores = self.passes.engine.looks(self.frames, images, count, make, self._reader(kind), take)
        asked = take is not None and len(images) > 0
        if asked and self.passes.engine.backwards == before and "constant" not in self._cache:
            self._refuse_cut_gradient()
            self._cache["constant"] = scores
        self.cost.add(object(), forwards=count if len(images) else 0, backwards=count if asked else 0)
        return scores

    def held(self) -> AbstractContextManager[None]:
        """Inside, the net stays ready for scores and looks, which a search of many short ones asks for."""
        return self.passes.engine.held(self.frames)

    # ---- without gradients -------------------------------------------------------------------------------

    def masked_scores(
        self,
        masks: Tensor,
        baseline: Baseline,
        *,
        expand: Expand,
        kind: Kind = "probability",
    ) -> Tensor:
        """The target's probability, or its score, of every image under every mask: ``(N, M)``, float32.

        "decision" is the probability with a sign: below 0 where the net would not decide for the target.

        `masks` ``(M, U)``, shared by all images, or ``(N, M, U)`` say for each unit how much of it is kept: 1 shows
        the image, 0 the baseline. `expand` lays units out over the frame (`regions`). A mask that an image has
        several times is scored once. Where the target is a function, its value is the score and the probability.
        """
        shared = masks if masks.ndim == 3 else masks[None]
        work = Work(
            self.frames, baseline.frames.to(self.frames), shared, expand, self._reader(kind), kind != "decision"
        )
        before = self.passes.engine.forwards
        scores = self.passes.engine.scores(work)
        self.cost.add(object(), forwards=-(-(self.passes.engine.forwards - before) // len(self)))
        return scores

    # ---- inside ------------------------------------------------------------------------------------------

    def _gradient_at(self, frames: Tensor, repeats: int) -> Tensor:
        net = self.model.net
        with as_found(net), torch.enable_grad():
            leaf = frames.detach().to(self.frames).clone(memory_format=memory_layout(net, frames)).requires_grad_()
            scores = self._score(self.model.forward(leaf.clone()), repeats)
            self.passes.count(forwards=len(leaf))
            if not scores.requires_grad:
                return torch.zeros_like(leaf, dtype=torch.float32)
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
        self.passes.count(backwards=len(leaf))
        return torch.zeros_like(leaf) if gradient is None else gradient.float()

    def _gradient(self, at: Tensor, trace: Trace, rule: rules.Rule) -> Tensor:
        with own_precision(self.model.net), torch.enable_grad():
            total = self._score(trace.output).sum()
            if not total.requires_grad:
                self._refuse_cut_gradient()
            return self.passes.differentiate(total, at, trace, rule).float()

    def _refuse_cut_gradient(self) -> None:
        """A score without a gradient is fine when it is constant; when it moves with the frames the net cuts it."""
        with as_found(self.model.net), torch.no_grad():
            moved = self._score(self.model.forward(self.frames.flip(-1) * 0.5))
            self.passes.count(forwards=len(self))
        if not torch.allclose(moved, self._score(self.passes.trace().output).detach(), rtol=1e-4, atol=1e-6):
            raise InputError(
                f"{self.model.name} cuts the gradient between the frames and the score (torch.no_grad, detach or "
                "argmax inside its forward). Remove that for explaining, or use a gradient-free method."
            )

    def _score(self, output: Any, repeats: int = 1) -> Tensor:
        """The target's score ``(rows,)`` in an output of `repeats` times the batch, or of one baseline for all."""
        return self._scored(output, None if self.index is None else self._index(repeats), repeats * len(self))

    def _scored(self, output: Any, index: Tensor | None, rows: int) -> Tensor:
        """The score of targets `index` ``(rows,)``, or of the target function, in an output of so many rows or one."""
        if self.function is not None:
            value = self.function(output)
            if not isinstance(value, Tensor) or value.shape not in ((rows,), (1,)):
                came = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"target: the function must give one score per image, ({rows},). Got {came}.")
            return value.float()
        if index is None:
            raise InputError("The probe has neither a target index nor a target function.")
        scores = self.model.scores(output).float().expand(len(index), -1)
        chosen = scores.gather(1, index[:, None])[:, 0]
        if self.score_kind == "logit" or (self.model.output == "probabilities" and self.score_kind == "probability"):
            return chosen
        if self.model.output == "probabilities":
            return torch.logit(chosen, eps=1e-7)
        if self.model.independent(scores.shape[1]):
            return chosen.sigmoid() if self.score_kind == "probability" else chosen
        if self.score_kind == "probability":
            return scores.softmax(1).gather(1, index[:, None])[:, 0]
        others = scores.scatter(1, index[:, None], -torch.inf)
        return chosen - others.logsumexp(1)

    def _probability(self, output: Any) -> Tensor:
        if self.function is not None:
            return torch.full((len(self),), torch.nan)
        probabilities = self.model.probabilities(self.model.scores(output).float().detach())
        index = self._index(1)
        return probabilities.expand(len(index), -1).gather(1, index[:, None])[:, 0]

    def _score_rows(self, output: Any, images: Tensor) -> Tensor:
        """The score of rows that are copies of the images ``(B,)``."""
        return self._scored(output, None if self.index is None else self.index.to(images.device)[images], len(images))

    def _reader(self, kind: Kind | Read) -> Read:
        known = {"probability": self._probability_rows, "score": self._score_rows, "decision": self._decision_rows}
        return known[kind] if isinstance(kind, str) else kind

    def _probability_rows(self, output: Any, images: Tensor) -> Tensor:
        if self.function is not None:
            return self._score_rows(output, images)
        probabilities = self.model.probabilities(self.model.scores(output).float())
        return probabilities.gather(1, self._index(1).to(images.device)[images][:, None])[:, 0]

    def _decision_rows(self, output: Any, images: Tensor) -> Tensor:
        """The probability, negative where another output has more, or of a yes or no less than one half."""
        own = self._probability_rows(output, images)
        if self.function is not None:
            return own
        all_of_them = self.model.probabilities(self.model.scores(output).float())
        independent = self.model.independent(all_of_them.shape[1])
        decided = own >= (0.5 if independent else all_of_them.amax(1))
        return torch.where(decided, own, -own)

    def _index(self, repeats: int) -> Tensor:
        if self.index is None:
            raise InputError("The probe has neither a target index nor a target function.")
        return self.index.repeat(repeats)


def score_kind(model: Model, score: Score) -> Score:
    """The score in force: logits where the net gives them; a logit of a net that gives probabilities is refused."""
    if score not in get_args(Score):
        raise InputError(f"score must be one of {', '.join(map(repr, get_args(Score)))}. Got {score!r}.")
    if score == "auto":
        return "logit" if model.output == "logits" else "probability"
    if score == "logit" and model.output == "probabilities":
        raise InputError(
            f"{model.name} gives probabilities where logits are needed: a saturated probability has lost what the "
            "logit says. Leave out the net's softmax, or ask for score='probability' or 'log_odds'."
        )
    return score
