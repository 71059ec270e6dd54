"""Nets: small ones with random weights, to run the contract on."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Two convolutions with every way to write a rectifier: in place, as a function, one module used twice."""

    def __init__(self, channels: int = 3, classes: int = 4, *, seed: int = 0, constant: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low = nn.Conv2d(channels, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.high = nn.Conv2d(6, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            if constant:
                self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(N, classes)``."""
        x = self.pool(self.relu(self.norm(self.low(x))))
        x = F.relu(self.relu(self.high(x)) - 0.05)
        scores: Tensor = self.head(self.drop(x.mean((2, 3))))
        return scores


class SmallTable(nn.Module):
    """Two linear layers with a rectifier between them, for rows of a table."""

    def __init__(self, features: int = 7, classes: int = 3, *, seed: int = 0, constant: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low, self.head = nn.Linear(features, 9), nn.Linear(9, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if constant:
                self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(N, classes)``."""
        scores: Tensor = self.head(F.relu(self.low(x)))
        return scores
