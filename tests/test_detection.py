"""Detectors at fixed boxes and segmentation nets at regions: against the nets' own parts and hand-written formulas."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

import whylens
from whylens import Detections, InputError, Instances, Model, Region
from whylens import places as places_
from whylens.rcnn import AtBox, Pyramid

SIDE = 96
CLASSES = ["disc", "bar", "star"]
BOX = (12.0, 20.0, 44.0, 60.0)
LARGE = (4.0, 8.0, 92.0, 90.0)
_NOISE = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
FRAMES = F.interpolate(_NOISE, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def body() -> nn.Sequential:
    stages = [(3, 8, 4), (8, 12, 2), (12, 16, 2)]
    return nn.Sequential(
        OrderedDict(
            (f"s{k}", nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()))
            for k, (i, o, s) in enumerate(stages)
        )
    )


def sharpened(net: Any) -> Any:
    """Weights under which scores move and several boxes are found: fresh heads give 1/K everywhere."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.02, 0.1)
        net.roi_heads.box_predictor.cls_score.weight.mul_(12)
        net.roi_heads.box_predictor.cls_score.bias[0] = -1
    return net.eval()


def mask_rcnn(**options: Any) -> MaskRCNN:
    """Three levels; a box of 32 x 32 belongs to the middle one."""
    torch.manual_seed(0)
    pyramid = BackboneWithFPN(body(), {"s0": "0", "s1": "1", "s2": "2"}, [8, 12, 16], 16)
    anchors = AnchorGenerator(((16,), (32,), (64,), (96,)), ((0.5, 1.0, 2.0),) * 4)
    pools = {
        f"{part}_roi_pool": MultiScaleRoIAlign(["0", "1", "2"], size, 2, canonical_scale=32, canonical_level=3)
        for part, size in (("box", 7), ("mask", 14))
    }
    settings = {"box_score_thresh": 0.05, "box_detections_per_img": 6, "min_size": SIDE, "max_size": SIDE}
    net = MaskRCNN(pyramid, num_classes=4, rpn_anchor_generator=anchors, **pools, **settings, **options)
    return sharpened(net)


def faster_rcnn() -> FasterRCNN:
    """One map, no pyramid."""
    torch.manual_seed(0)
    backbone: Any = body()
    backbone.out_channels = 16
    anchors = AnchorGenerator(((24, 48),), ((1.0,),))
    pool = MultiScaleRoIAlign(["0"], 7, 2)
    return sharpened(
        FasterRCNN(
            backbone, num_classes=4, rpn_anchor_generator=anchors, box_roi_pool=pool, min_size=SIDE, max_size=SIDE
        )
    )


def detector(net: Any = None, **options: Any) -> Model:
    return Model(net or mask_rcnn(), task="detection", classes=CLASSES, name="own", **options)


def normalised(frames: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (frames - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def by_hand(net: Any, frame: Tensor, box: tuple[float, ...], level: Tensor | None = None) -> Tensor:
    """Class scores of one frame (3, H, W) at a box, with the features of its own or with another map at level 1."""
    features = net.backbone(normalised(frame[None]))
    features = OrderedDict([("0", features)]) if isinstance(features, Tensor) else features
    if level is not None:
        features["1"] = level
    heads = net.roi_heads
    pooled = heads.box_roi_pool(features, [torch.tensor([box])], [(SIDE, SIDE)])
    return heads.box_predictor(heads.box_head(pooled))[0]


def at(boxes: Any, **options: Any) -> Instances:
    return Instances(boxes=boxes, **options)


# ---- what is found -------------------------------------------------------------------------------------------------


def test_detections_are_those_of_the_net_itself() -> None:
    model = detector()
    found = model.detect(FRAMES, threshold=0.0)
    with torch.no_grad():
        expected = model.net(list(FRAMES))
    assert [len(one) for one in found] == [6, 6]
    for one, own in zip(found, expected, strict=True):
        for name in ("boxes", "labels", "scores"):
            torch.testing.assert_close(getattr(one, name), own[name], rtol=1e-4, atol=1e-4)
        assert one.masks is not None
        assert float((one.masks == (own["masks"][:, 0] >= 0.5)).float().mean()) > 0.999
    middle = float(found[0].scores[2])
    assert len(model.detect(FRAMES, threshold=middle)[0]) == 3
    (alone,) = model.detect(FRAMES[1:], threshold=0.0)
    assert torch.equal(alone.boxes, found[1].boxes)
    assert model.classes == ("background", *CLASSES)


def test_photos_of_any_size_enter_by_the_preprocess_and_the_nets_own_normalisation() -> None:
    plain = whylens.Preprocess((SIDE, SIDE), SIDE, mean=(0.1,) * 3, std=(0.2,) * 3, fit="longer")
    model = detector(preprocess=plain)
    assert model.preprocess is not None
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
    photo = (FRAMES[0, :, :64] * 255).to(torch.uint8)
    frame, placement = model.prepare(photo)
    assert tuple(frame.shape) == (3, SIDE, SIDE)
    found = whylens.explain(model, [photo], target=at([[(*BOX, "disc")]]))
    torch.testing.assert_close(found.scores, by_hand(model.net, frame, BOX)[0, 1:2], rtol=1e-4, atol=1e-4)
    assert found.placements == (placement,)
    with torch.no_grad():
        torch.testing.assert_close(model.forward(frame[None])[0]["scores"], model.net([frame])[0]["scores"])


# ---- the score at a box --------------------------------------------------------------------------------------------


def test_the_score_at_a_box_is_what_the_net_gives_a_proposal_before_suppression() -> None:
    net = mask_rcnn()
    net.roi_heads.score_thresh, net.roi_heads.nms_thresh, net.roi_heads.detections_per_img = 0.0, 1.1, 10_000
    given = normalised(FRAMES[:1])
    proposal = torch.tensor([BOX])
    with torch.no_grad():
        (own,), _ = net.roi_heads(net.backbone(given), [proposal], [(SIDE, SIDE)])
    found = whylens.explain(detector(net), FRAMES[:1], method="saliency", target=at([[(*BOX, c) for c in CLASSES]]))
    own_scores = torch.stack([own["scores"][own["labels"] == k][0] for k in (1, 2, 3)])
    torch.testing.assert_close(found.probabilities, own_scores, rtol=1e-4, atol=1e-5)
    assert float(own_scores.max() - own_scores.min()) > 0.02
    torch.testing.assert_close(found.scores, by_hand(net, FRAMES[0], BOX)[0, 1:], rtol=1e-4, atol=1e-4)


def test_grad_cam_at_a_box_against_autograd_on_the_boxs_level() -> None:
    net = mask_rcnn()
    found = whylens.explain(detector(net), FRAMES, target=at([[(*BOX, "bar")], [(*BOX, 2)]]))
    assert found.layer == "level.1"
    for k, frame in enumerate(FRAMES):
        level = net.backbone(normalised(frame[None]))["1"].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(by_hand(net, frame, BOX, level)[0, 2], level)
        cam = (gradient.mean((2, 3), keepdim=True) * level).sum(1, keepdim=True).relu().detach()
        assert float(cam.max()) > 0
        expected = F.interpolate(cam, size=(24, 24), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found.maps[k : k + 1], expected, rtol=1e-3, atol=1e-6)
    assert {p.grad for p in net.parameters()} == {None}


def test_the_input_gradient_at_a_box_and_the_score_of_a_black_picture() -> None:
    net = faster_rcnn()
    frame = FRAMES[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(by_hand(net, frame, BOX)[0, 3], frame)
    found = whylens.explain(detector(net), FRAMES[:1], method="input_x_gradient", target=at([[(*BOX, "star")]]))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # the net's own: 0 is what it takes for nothing
    torch.testing.assert_close(found.maps[0], gradient * (FRAMES[0] - mean), rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        black = by_hand(net, torch.zeros(3, SIDE, SIDE), BOX)[0, 3]
    place = places_.at_box(detector(net), FRAMES[:1], BOX, 3)
    with torch.no_grad():
        torch.testing.assert_close(place.view.forward(torch.zeros(2, 3, SIDE, SIDE))[:, 3], black.expand(2))
    assert float((black - found.scores[0]).abs()) > 1e-3


def test_the_masks_logit_as_score() -> None:
    net = mask_rcnn()
    found = whylens.explain(detector(net), FRAMES[:1], target=at([[(*BOX, "bar")]], of="mask"))
    heads = net.roi_heads
    level = net.backbone(normalised(FRAMES[:1]))["1"].detach().requires_grad_()
    features = {**net.backbone(normalised(FRAMES[:1])), "1": level}
    pooled = heads.mask_roi_pool(features, [torch.tensor([BOX])], [(SIDE, SIDE)])
    logits = heads.mask_predictor(heads.mask_head(pooled))[0, 2]
    inside = logits.detach() >= 0
    assert 0 < int(inside.sum()) < inside.numel()
    torch.testing.assert_close(found.scores[0], logits[inside].mean().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities[0], found.scores[0].sigmoid())
    (gradient,) = torch.autograd.grad(logits[inside].mean(), level)
    cam = (gradient.mean((2, 3), keepdim=True) * level).sum(1, keepdim=True).relu().detach()
    torch.testing.assert_close(found.maps, F.interpolate(cam, size=(24, 24), mode="bilinear"), rtol=1e-3, atol=1e-7)
    assert found.instances[0].of == "mask"


# ---- rows ----------------------------------------------------------------------------------------------------------


def test_one_row_per_object_found_the_same_in_any_batch() -> None:
    model = detector()
    found = whylens.explain(model, FRAMES, method="grad_cam", target=Instances(threshold=0.05))
    every = model.detect(FRAMES, threshold=0.05)
    assert found.ids == tuple(name for name, one in zip("01", every, strict=True) for _ in range(len(one)))
    assert [one.number for one in found["1"].instances] == list(range(len(every[1])))
    assert found.target_names[1] == f"{model.class_name(int(every[0].labels[1]))} #1"
    boxes = torch.tensor([one.box for one in found["0"].instances])
    torch.testing.assert_close(boxes, every[0].boxes)
    for one in found["0"].instances:
        assert by_hand(model.net, FRAMES[0], one.box)[0, one.label].item() == pytest.approx(
            float(found["0"].scores[one.number]), rel=1e-3, abs=1e-4
        )
    alone = whylens.explain(detector(), FRAMES[1:], method="grad_cam", target=Instances(threshold=0.05))
    torch.testing.assert_close(found["1"].maps, alone.maps, rtol=1e-5, atol=1e-6)
    assert [vars(one) for one in alone.instances] == [vars(one) for one in found["1"].instances]
    some = whylens.explain(model, FRAMES, method="grad_cam", target="bar")
    assert {one.name for one in some.instances} == {"bar"}


@pytest.mark.parametrize(
    "method",
    [
        "guided_grad_cam", "layer_cam", "grad_cam_pp", "smooth_grad:samples=2", "integrated_gradients:steps=4",
        "guided_backprop", "deconvolution", "deep_lift", "excitation_backprop", "rise:samples=8", "occlusion:cells=4",
        "lime:samples=8", "kernel_shap:samples=64", "igos_pp:iterations=1,size=7,steps=4", "gsinquire",
    ],
)  # fmt: skip
def test_every_kind_of_method_explains_a_box(method: str) -> None:
    model = detector()
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    found = whylens.explain(model, FRAMES, method=method, target=at([[(*BOX, 1), (*LARGE, 2)], [(*BOX, 1)]]))
    assert found.ids == ("0", "0", "1")
    assert bool(found.maps.isfinite().all())
    assert not bool(found.checks["flat"].all()) or method == "gsinquire"  # finds nothing that undoes the decision
    alone = whylens.explain(model, FRAMES[1:], method=method, target=at([[(*BOX, 1)]]))
    torch.testing.assert_close(alone.maps[0], found.maps[2], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())


def test_several_methods_share_their_passes_at_a_box() -> None:
    many = whylens.explain_many(detector(), FRAMES[:1], methods=["grad_cam", "layer_cam"], target=at([[(*BOX, 1)]]))
    assert [e.cost["run_forwards"] for e in many.values()] == [1, 0]


def test_the_level_of_a_box_is_torchvisions() -> None:
    net = mask_rcnn()
    model = detector(net)
    pool, pyramid = net.roi_heads.box_roi_pool, Pyramid.of(net, FRAMES[:1])
    own = LevelMapper(2, 4, canonical_scale=32, canonical_level=3)
    edges = [(0, 0, w, h) for w in (2, 15.9, 16, 31, 32, 63.9, 64, 96) for h in (4, 32, 90)]
    for box in edges:
        level, layer = pyramid.level(box, pool)
        assert level == str(int(own([torch.tensor([box], dtype=torch.float32)])))
        assert layer.name == f"level.{level}"
    found = whylens.explain(model, FRAMES[:1], target=at([[(*BOX, 1), (*LARGE, 1), (5, 5, 15, 15, 1)]]))
    assert [one.layer for one in found.instances] == ["level.1", "level.2", "level.0"]
    assert "P4 of a box of 88 x 82" in found.instances[1].reason
    assert found.maps.shape == (3, 1, 24, 24)
    assert found.layer == "level.1, level.2, level.0"
    chosen = whylens.explain(model, FRAMES[:1], layer="backbone.body.s2", target=at([[(*BOX, 1)]]))
    assert chosen.maps.shape == (1, 1, 6, 6)
    assert (chosen.layer, chosen.instances[0].layer) == ("backbone.body.s2", "level.1")
    single = whylens.explain(detector(faster_rcnn()), FRAMES[:1], target=at([[(*BOX, 1)]]))
    assert single.maps.shape == (1, 1, 6, 6)
    assert single.instances[0].reason == "the only map that boxes are pooled from"


def test_an_explanation_of_boxes_is_saved_drawn_and_measured(tmp_path: Path) -> None:
    model = detector()
    target = at([[(*BOX, 1)], [(*BOX, 1), (*LARGE, 2)]])
    found = whylens.explain(model, FRAMES, target=target)
    again = whylens.Explanation.load(found.save(tmp_path / "e"), images=found.images)
    assert str(again.instances) == str(found.instances)
    assert str(again.instances[2]) == "bar #1 at (4, 8, 92, 90)"
    from whylens.picture import picture

    drawn = torch.tensor(list(picture(again, 0, FRAMES[0]).get_flattened_data())).view(SIDE, SIDE, 3)
    bare = torch.tensor(
        list(picture(whylens.explain(model, FRAMES[:1], target=at([[(*LARGE, 1)]])), 0, FRAMES[0]).get_flattened_data())
    )
    assert drawn[40, 12].tolist() == [255, 255, 255] != bare.view(SIDE, SIDE, 3)[40, 12].tolist()
    found.figure()
    scores = whylens.measure(model, FRAMES, found, metric="deletion", params={"steps": 4})
    assert scores.curve is not None
    torch.testing.assert_close(scores.curve[:, 0], found.probabilities, rtol=1e-3, atol=1e-4)
    (one,) = whylens.measure(model, FRAMES[:1], found["0"], metric="deletion", params={"steps": 4}).values
    assert float(one) == pytest.approx(float(scores.values[0]), abs=1e-5)
    whylens.measure(model, FRAMES, found, metric="max_sensitivity", params={"samples": 1})
    with pytest.raises(InputError, match="compares with the mask of an image"):
        whylens.measure(model, FRAMES, found, metric="pointing_game")


def test_an_image_without_objects_is_a_failure_with_its_reason() -> None:
    model = detector()
    best = float(max(one.scores.max() for one in model.detect(FRAMES, threshold=0.0)))
    found = whylens.explain(model, FRAMES, target=Instances(threshold=best))
    assert len(found) == 1
    assert [reason.startswith("no detection with a score of") for reason in found.failures.values()] == [True]
    with pytest.raises(InputError, match=r"None of the 2 images has an object to explain\. The first, 0: no detection"):
        whylens.explain(model, FRAMES, target=Instances(threshold=1.0))
    with pytest.raises(InputError, match="of the classes asked for"):
        whylens.explain(model, FRAMES, target=at([[(*BOX, 1)], []], classes=["star"]))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (at([[(-1, 0, 5, 5, 1)], []]), r"inside the frame of 96 x 96 pixels .* Got \(-1, 0, 5, 5\)"),
        (at([[(5, 0, 5, 5, 1)], []]), "a box must be"),
        (at([[(5, 0, 90, 97, 1)], []]), "a box must be"),
        (at([[(5, 0, 97, 90, 1)], []]), "a box must be"),
        (at([[(0, 0, 5, 5)], []]), r"must be \(left, top, right, bottom, class\)"),
        (at([[(0, 0, 5, 5, 0)], []]), "a number from 1 on. Got 0"),
        (at([[(0, 0, 5, 5, "moon")], []]), "No class 'moon'"),
        (at([[(0, 0, 5, 5, 9)], []]), "the net has 4 outputs, 0 to 3. Got 9"),
        (at([[]]), "one entry per image, 2. Got 1"),
        ([1, 2], r"Instances\(...\) or a function of the output. Got list"),
        (Region(1), "Got Region"),
        ("moon", "No class 'moon'"),
    ],
)
def test_what_is_no_box_is_refused(target: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        whylens.explain(detector(), FRAMES, target=target)


def test_what_a_detector_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="of='mask' needs a mask head"):
        whylens.explain(detector(faster_rcnn()), FRAMES, target=Instances(of="mask"))
    with pytest.raises(InputError, match=r"multiples of 32\. Got \(96, 100\)"):
        whylens.explain(detector(), torch.rand(1, 3, 96, 100))
    for wrong in ({"threshold": 1.5}, {"threshold": "x"}, {"of": "box"}):
        with pytest.raises(InputError, match="Instances: "):
            Instances(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be a Faster or Mask R-CNN"):
        Model(nn.Conv2d(3, 2, 3), task="detection").detect(FRAMES)
    with pytest.raises(InputError, match="is no Faster or Mask R-CNN"):
        whylens.explain(Model(nn.Conv2d(3, 2, 3), task="detection"), FRAMES)
    with pytest.raises(InputError, match="Instances is for task='detection'"):
        whylens.explain(Model(nn.Conv2d(3, 2, 3)), FRAMES, target=Instances())
    with pytest.raises(InputError, match="has no scores of whole images"):
        detector().predict(FRAMES)
    with pytest.raises(InputError, match="boxes move from epoch to epoch"):
        whylens.Recorder(detector(), FRAMES, out="nowhere")


def test_a_function_of_a_detectors_output_is_still_a_target() -> None:
    found = whylens.explain(
        detector(), FRAMES[:1], method="saliency", target=lambda out: torch.stack([one["scores"].sum() for one in out])
    )
    assert found.maps.shape == (1, 3, SIDE, SIDE)
    assert found.instances == ()


def test_an_attention_graph_of_a_box() -> None:
    graph = whylens.attention_graph(
        detector(), FRAMES[:1], at([[(*BOX, 1)]]), grid=2, guide="none", baseline="black", params={"threshold": 0.5}
    )
    assert graph.subject.target_name == "disc"
    with pytest.raises(InputError, match=r"A graph is of one object\. Got 2 objects"):
        whylens.attention_graph(detector(), FRAMES[:1], at([[(*BOX, 1), (*LARGE, 1)]]))


def test_detections_of_ones_own_are_boxes() -> None:
    own = Detections(torch.tensor([BOX]), torch.tensor([2]), torch.tensor([0.9]))
    found = whylens.explain(detector(), FRAMES[:1], method="saliency", target=at([own]))
    assert found.instances[0].score == pytest.approx(0.9)
    assert AtBox(mask_rcnn(), BOX, "1")(normalised(FRAMES[:1]))[0, 2].item() == pytest.approx(
        float(found.scores[0]), rel=1e-4
    )


# ---- segmentation --------------------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """Answers as torchvision's do, at a quarter of the size."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.low, self.mid = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Conv2d(8, outputs, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.mid(self.low(x).relu()).relu())}


def segmenter(outputs: int = 3, **options: Any) -> Model:
    return Model(Segmenter(outputs), task="segmentation", classes=["a", "b", "c"][:outputs], **options)


def test_a_class_over_the_pixels_it_is_predicted_at() -> None:
    model = segmenter()
    out = model.net(FRAMES)["out"]
    index = int(out[0].argmax(0).flatten().mode().values)
    found = whylens.explain(model, FRAMES, layer="low", target=index)
    for k in range(2):
        low = model.net.low(FRAMES[k : k + 1]).detach().requires_grad_()
        scores = model.net.head(model.net.mid(low.relu()).relu())[0]
        there = out[k].argmax(0) == index
        assert bool(there.any())
        score = scores[index][there].mean()
        assert float(found.scores[k]) == pytest.approx(score.item(), rel=1e-4)
        (gradient,) = torch.autograd.grad(score, low)
        cam = (gradient.mean((2, 3), keepdim=True) * low).sum(1, keepdim=True).relu()[0].detach()
        torch.testing.assert_close(found.maps[k], cam, rtol=1e-3, atol=1e-6)
    assert found.checks["not_predicted"].tolist() == [False, False]
    assert found.target_names == (model.class_name(index),) * 2
    name = whylens.explain(model, FRAMES, layer="low", target=model.class_name(index))
    assert torch.equal(name.maps, found.maps)
    ruled = whylens.explain(model, FRAMES[:1], target=index)
    assert ruled.layer == "mid"  # the rule's answer for all pixels, whatever region is asked for
    alone = whylens.explain(model, FRAMES[1:], method="rise:samples=8", target=index)
    both = whylens.explain(model, FRAMES, method="rise:samples=8", target=index)
    torch.testing.assert_close(both.maps[1:], alone.maps, rtol=1e-4, atol=1e-6)


def test_the_feature_layer_lies_before_the_scores_also_inside_the_classifier() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 6, 3, 2, 1)
            self.classifier = nn.Sequential(nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": F.interpolate(self.classifier(self.body(x).relu()), x.shape[2:], mode="bilinear")}

    found = whylens.explain(Model(Parts(), task="segmentation"), FRAMES, target=1)
    assert found.layer == "classifier.1"


def test_a_region_given_as_a_mask() -> None:
    model = segmenter()
    mask = torch.zeros(SIDE, SIDE)
    mask[8:24, 40:60] = 1
    found = whylens.explain(model, FRAMES, method="input_x_gradient", target=Region("b", masks=mask))
    frame = FRAMES[1].clone().requires_grad_()
    score = model.net(frame[None])["out"][0, 1, 2:6, 10:15].mean()
    assert float(found.scores[1]) == pytest.approx(score.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(score, frame)
    torch.testing.assert_close(found.maps[1], gradient * FRAMES[1], rtol=1e-3, atol=1e-7)
    with pytest.raises(InputError, match="explained at a mask of your own"):
        whylens.measure(model, FRAMES, found, metric="deletion", params={"steps": 2})
    several = whylens.explain(model, FRAMES, method="saliency", target=Region(["b", 0], masks=[mask, 1 - mask]))
    assert several.target_names == ("b", "a")
    assert float(several.scores[0]) == pytest.approx(float(found.scores[0]))


def test_a_class_predicted_nowhere_is_explained_over_all_pixels_and_flagged() -> None:
    model = segmenter()
    with torch.no_grad():
        model.net.head.bias[2] = -50
    found = whylens.explain(model, FRAMES, method="saliency", target="c")
    assert found.checks["not_predicted"].tolist() == [True, True]
    torch.testing.assert_close(found.scores, model.net(FRAMES)["out"][:, 2].mean((1, 2)).detach())
    scores = whylens.measure(model, FRAMES, found, metric="deletion", params={"steps": 2})
    assert scores.curve is not None
    torch.testing.assert_close(scores.curve[:, 0], found.probabilities, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (None, "needs target=, the class whose pixels are explained"),
        (-1, "needs target="),
        (7, "with more than 7 classes"),
        ("z", "No class 'z'"),
        ([0], "2 images need 2 targets"),
        (Region(0, masks=torch.zeros(SIDE, SIDE)), "hold at least one pixel"),
        (Region(0, masks=[torch.ones(SIDE, SIDE)]), "one mask per image, 2"),
        (Region(0, masks=torch.ones(4, 4)), "the mask must have the upright photo's size"),
        (Instances(), "Got Instances"),
    ],
)
def test_what_is_no_region_is_refused(target: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        whylens.explain(segmenter(), FRAMES, method="saliency", target=target)


def test_one_output_is_a_yes_or_no_of_every_pixel() -> None:
    model = segmenter(1)
    with torch.no_grad():
        model.net.head.bias.sub_(model.net(FRAMES)["out"].median())
    out = model.net(FRAMES)["out"][:, 0].detach()
    found = whylens.explain(model, FRAMES, method="saliency", target=0)
    torch.testing.assert_close(found.scores, torch.stack([o[o > 0].mean() for o in out]))
    torch.testing.assert_close(found.probabilities, found.scores.sigmoid())
