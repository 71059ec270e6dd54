"""What several test files share: one thread, small nets in a file, two photos, the command line in this process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from whylens import cli

torch.set_num_threads(1)  # the nets are small, and tests run side by side

NETS = '''
import torch
from torch import nn
from whylens import Model, Preprocess

FRAME = Preprocess((32, 32), 32)


def net(classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        return nn.Sequential(
            first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
        ).eval()


class Cut(nn.Module):
    """Its gradient is cut."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        with torch.no_grad():
            return self.net(x)


class Twice(nn.Module):
    """One layer runs twice."""

    def __init__(self):
        super().__init__()
        self.again, self.net = nn.Conv2d(3, 3, 3, 1, 1), net()

    def forward(self, x):
        return self.net(self.again(self.again(x).relu()))


def bare():
    return net()


def prepared():
    return net(), FRAME


def model():
    return Model(net(), preprocess=FRAME, classes=["cat", "dog", "tabby"], layer="1", name="own")


def softmax():
    return nn.Sequential(*net(), nn.Softmax(1)), FRAME


def probabilities():
    return Model(nn.Sequential(*net(), nn.Softmax(1)), preprocess=FRAME, output="probabilities", name="own")


def cut():
    return Cut(), FRAME


def twice():
    return Twice(), FRAME


def not_a_number():
    made = net()
    made[-1].bias.data.fill_(float("nan"))
    return made, FRAME


def flat():
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3 * 24 * 24, 3)), FRAME


def word():
    return "resnet18"


def raises():
    raise KeyError("no such thing\\nand more")


def leaves():
    raise SystemExit(0)
'''


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spaces and umlauts: ``nets.py`` and two photos of noise, ``föto 1.png`` and ``föto 2.png``."""
    folder = tmp_path_factory.mktemp("front") / "Größe & Maß"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS, "utf-8")
    rng = np.random.default_rng(0)
    for i, size in enumerate(((40, 52), (61, 33)), 1):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"föto {i}.png")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """``whylens ARGUMENTS`` in this process."""
    logger = logging.getLogger("whylens")
    level = logger.level

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["whylens", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        held = capsys.readouterr()
        return Said(int(end.value.code or 0), held.out, held.err)

    yield run
    logger.setLevel(level)


@pytest.fixture
def refused(command: Callable[..., Said]) -> Callable[..., str]:
    """The one sentence with which a command refuses: exit code 2, no traceback, nothing on standard output."""

    def run(*arguments: object) -> str:
        said = command(*arguments)
        assert said.code == 2, said
        assert said.out == ""
        assert said.err.startswith("whylens: ")
        assert said.err.count("\n") <= 2
        assert "Traceback" not in said.err
        assert "defect" not in said.err
        return said.err.removeprefix("whylens: ").strip()

    return run


CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser without a screen, a GPU or a wish to call anybody; ``tools/viewer`` installs it."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM.exists(), "No chromium here. Run tools/viewer, which installs it."
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=quiet)
        yield opened
        opened.close()
