"""Black boxes: a Python function serves every method that needs scores alone, and says one sentence where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whylens
from whylens import InputError, Method, Model, _plugins, testing
from whylens.errors import NetError

NET = testing.SmallNet().eval()
FRAMES = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(0))

FREE = [name for name in _plugins.names("methods") if Method(name).facts.black_box]
BOUND = [name for name in _plugins.names("methods") if not Method(name).facts.black_box]

FEW: dict[str, dict[str, Any]] = {
    "kernel_shap": {"samples": 60, "count": 9},
    "lime": {"samples": 60, "units": "grid", "count": 9},
    "partition_shap": {"max_evals": 40},
    "rise": {"samples": 40},
}
"""Parameters that keep a method short; others run with their own."""


def classify(frames: Tensor) -> Tensor:
    """A function with nothing of a net about it."""
    return NET(frames)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# ---- what a function gives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FREE)
def test_every_gradient_free_method_gives_a_function_the_map_of_its_net(name: str) -> None:
    found, plain = (
        whylens.explain(net, FRAMES, method=name, target=1, params=FEW.get(name)) for net in (classify, NET)
    )
    assert float(plain.maps.abs().max()) > 0
    bar = 1e-5 * float(plain.maps.abs().max())
    torch.testing.assert_close(found.maps, plain.maps, rtol=0, atol=bar)
    torch.testing.assert_close(found.scores, plain.scores)
    assert found.cost["forwards"] == plain.cost["forwards"]
    assert found.model == "classify"


@pytest.mark.parametrize("name", BOUND)
def test_every_gradient_method_refuses_a_function_in_one_sentence(name: str) -> None:
    said = refusal(lambda: whylens.explain(classify, FRAMES, method=name))
    assert said.startswith(f"{name} needs gradients, and classify gives none (it is a black box).")
    assert said.endswith("whylens methods.")


def test_both_kinds_of_methods_are_tried() -> None:
    assert {"rise", "lime", "kernel_shap", "occlusion"} <= set(FREE)
    assert {"grad_cam", "saliency"} <= set(BOUND)


def plain_numbers(frames: Tensor) -> Any:
    return NET(frames).tolist()


@pytest.mark.parametrize(
    "function",
    [
        plain_numbers,
        lambda x: NET(x).numpy(),
        lambda x: NET(x).double().numpy(),
        lambda x: NET(x).half(),
        lambda x: list(NET(x)),
        lambda x: list(NET(x).requires_grad_()),
        lambda x: [row.numpy() for row in NET(x)],
        lambda x: [tuple(row) for row in NET(x).tolist()],
        lambda x: {"logits": NET(x).numpy()},
        lambda x: (NET(x).numpy(), "features"),
        lambda x: NET(torch.from_numpy(np.asarray(x))),
    ],
)
def test_arrays_and_lists_are_scores(function: Callable[[Tensor], Any]) -> None:
    scores = Model(function).predict(FRAMES)
    torch.testing.assert_close(scores, Model(NET).predict(FRAMES), rtol=0, atol=1e-3)
    assert scores.dtype == torch.float32


def test_whole_numbers_are_scores() -> None:
    votes = Model(lambda x: (NET(x) > 0).numpy(), task="multilabel", output="probabilities")
    assert set(votes.predict(FRAMES).unique().tolist()) <= {0.0, 1.0}
    counts = Model(lambda x: [3, 1, 2][: len(x)])
    assert counts.scores(counts.forward(FRAMES))[:, 0].tolist() == [3, 1, 2]


def test_a_function_is_called_without_gradients_on_a_copy_of_its_own() -> None:
    seen: list[bool] = []

    def spoiled(frames: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled() or frames.requires_grad or torch.is_inference_mode_enabled())
        assert frames.dtype == torch.float32
        assert frames.is_contiguous()
        scores = NET(frames)
        frames.zero_()
        return scores

    frames = FRAMES.clone()
    with torch.enable_grad():
        Model(spoiled).predict(frames)
        assert torch.equal(frames, FRAMES)
        found = whylens.explain(spoiled, frames, method="occlusion", target=1)
    torch.testing.assert_close(found.maps, whylens.explain(NET, frames, method="occlusion", target=1).maps)
    assert seen
    assert not any(seen)
    assert torch.equal(frames, FRAMES)


def test_a_preprocess_classes_and_probabilities_work_as_for_a_net() -> None:
    kind: dict[str, Any] = {
        "preprocess": whylens.Preprocess((16, 16), mean=(0.5,) * 3, std=(0.25,) * 3),
        "classes": ["a", "b", "c", "d"],
        "output": "probabilities",
    }
    by_function, by_net = (
        whylens.explain(Model(net, **kind), FRAMES, method="occlusion", target="b")
        for net in (lambda x: classify(x).softmax(1).numpy(), nn.Sequential(NET, nn.Softmax(1)))
    )
    torch.testing.assert_close(by_function.maps, by_net.maps, rtol=0, atol=1e-6)
    assert by_function.target_names == ("b",) * 3
    assert by_function.score_kind == "probability"


def test_a_target_function_gets_what_the_function_returned() -> None:
    function = whylens.explain(
        lambda x: {"boxes": NET(x)[:, 2].numpy()}, FRAMES, method="occlusion", target=lambda out: out["boxes"]
    )
    torch.testing.assert_close(function.maps, whylens.explain(NET, FRAMES, method="occlusion", target=2).maps)


@pytest.mark.parametrize("metric", ["insertion", "deletion"])
def test_metrics_run_on_a_function(metric: str) -> None:
    maps = whylens.explain(NET, FRAMES, method="saliency", target=1)
    found, plain = (whylens.measure(net, FRAMES, maps, metric=metric) for net in (classify, NET))
    torch.testing.assert_close(found.values, plain.values, rtol=0, atol=1e-5)


# ---- what it is called --------------------------------------------------------------------------------------


class Judge:
    def __call__(self, frames: Tensor) -> Tensor:
        return NET(frames)

    def judge(self, frames: Tensor) -> Tensor:
        return NET(frames)


def test_the_name_is_the_functions() -> None:
    for given, name in (
        (classify, "classify"),
        (partial(classify), "classify"),
        (lambda x: x, "function"),
        (Judge(), "Judge"),
        (Judge().judge, "judge"),
    ):
        model = Model(given)
        assert model.name == name
        assert not model.differentiable
        assert not Model(given, differentiable=True).differentiable
    assert Model(classify, name="mine").name == "mine"


# ---- what goes wrong ---------------------------------------------------------------------------------------


def broken(frames: Tensor) -> Tensor:
    return {}["weights"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["rise", "lime"])
def test_what_a_function_raises_is_one_sentence_with_its_cause(method: str) -> None:
    with pytest.raises(NetError) as error:
        whylens.explain(broken, FRAMES, method=method)
    assert str(error.value) == (
        "broken cannot score frames (3, 3, 16, 16): KeyError: 'weights'. "
        "It is called with a float tensor of that shape and must give scores (N, K)."
    )
    assert isinstance(error.value.__cause__, KeyError)


def test_memory_that_runs_out_halves_the_batch() -> None:
    def small(frames: Tensor) -> Tensor:
        if len(frames) > 1:
            raise RuntimeError("can't allocate memory: 1 GB")
        return NET(frames)

    found = whylens.explain(small, FRAMES, method=lambda_method, target=1)
    torch.testing.assert_close(found.scores, whylens.explain(NET, FRAMES, method=lambda_method, target=1).scores)


@whylens.MethodFacts(needs=("scores",), unit="score", signed=True)
def lambda_method(probe: whylens.Probe) -> Tensor:
    """The score everywhere."""
    return probe.score.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: "cat", "returns str, in which no class scores can be found"),
        (lambda x: None, "returns NoneType"),
        (lambda x: ["cat"] * len(x), "returns str"),
        (lambda x: NET(x)[0], "function must give one row of scores per frame, (3, K). Got (4,)."),
        (lambda x: NET(x).mean(), "Got ()."),
        (lambda x: 0.5, "Got ()."),
        (lambda x: [[1.0, 2.0], [1.0], [1.0]], "function cannot score frames (3, 3, 16, 16): ValueError"),
        (lambda x: x, "must return class scores (N, K). Got (3, 3, 16, 16)."),
        (lambda x: NET(x).softmax(1), "returns probabilities (every row sums to 1) where logits are needed"),
        (lambda: 0, "TypeError"),
    ],
)
def test_nonsense_is_one_sentence(function: Callable[..., Any], words: str) -> None:
    assert words in refusal(lambda: whylens.explain(function, FRAMES, method="rise", params={"samples": 4}))


def test_what_is_no_function_is_refused() -> None:
    assert "Got the class SmallNet. Make one of it." in refusal(lambda: Model(testing.SmallNet))
    assert "Got int." in refusal(lambda: Model(3))  # type: ignore[arg-type]
    assert "a function has no layers" in refusal(lambda: Model(classify, layer="layer4"))
    assert "whylens.load_model('net.py:f')" in refusal(lambda: whylens.explain("net.py:f", FRAMES))  # type: ignore[arg-type]


# ---- a function on disk --------------------------------------------------------------------------------------


def test_an_audit_runs_here_and_tells_another_function_apart(photos: Path, tmp_path: Path) -> None:
    def twice(frames: Tensor) -> Tensor:
        return 2 * NET(frames)

    kind: dict[str, Any] = {"preprocess": whylens.Preprocess((16, 16))}
    asked: dict[str, Any] = {"methods": [Method("occlusion")], "out": tmp_path / "run"}
    run = whylens.audit(Model(classify, **kind), photos, **asked)
    assert run.table().num_rows == 2
    again = whylens.audit(Model(classify, **kind), photos, **asked)
    assert again.table().equals(run.table())
    other = refusal(lambda: whylens.audit(Model(twice, **kind), photos, **asked))
    assert "was made with another model" in other
    assert "made in Python" in refusal(run.model)
    several = refusal(lambda: whylens.audit(Model(classify, **kind), photos, workers=2, **asked))
    assert "several workers must each open the model" in several
    assert "load_model('FILE.py:FUNCTION')" in several
    saved = refusal(lambda: whylens.save_model(Model(classify, **kind), tmp_path / "model"))
    assert "cannot be opened again by name" in saved


def test_a_function_in_a_file_is_opened_again(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "box.py").write_text(
        "import whylens\n\n\ndef brightness(frames):\n"
        "    return [[v, -v] for v in frames.mean((1, 2, 3)).tolist()]\n\n\n"
        "def model():\n    return whylens.Model(brightness, preprocess=whylens.Preprocess((16, 16)))\n"
    )
    model = whylens.load_model(f"{tmp_path / 'box.py'}:model", device="cpu")
    assert not model.differentiable
    run = whylens.audit(model, photos, methods=["occlusion"], out=tmp_path / "run")
    again = run.model()
    frames = FRAMES.clone()
    torch.testing.assert_close(again.predict(frames), model.predict(frames))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder
