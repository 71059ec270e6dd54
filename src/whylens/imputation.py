"""Imputation: missing pixels of a frame, filled so that each is the mean of its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NEAR, FAR = 1 / 6, 1 / 12
"""Weights of the four pixels beside a pixel, and of the four at its corners; together they are 1."""

_OFFSETS = {(i, j): NEAR if i * j == 0 else FAR for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}


def imputed(frame: Tensor, missing: Tensor) -> Tensor:
    """The frame ``(C, H, W)`` with its `missing` pixels ``(H, W)`` filled; at least one must be there.

    Every missing pixel is the weighted mean of its eight neighbours, missing ones included; at the border of those
    that exist. These linear equations are solved exactly, on the CPU in float64.

    Source: Rong et al. 2022, arXiv:2202.00449, section 4.2 (noisy linear imputation, without the noise).
    """
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    gone = missing.cpu().numpy()
    count = int(gone.sum())
    if not count:
        return frame
    values = frame.detach().double().cpu().numpy()
    number = np.full(np.add(gone.shape, 2), -1)  # of each missing pixel, with a rim of pixels that do not exist
    number[1:-1, 1:-1][gone] = np.arange(count)
    known = np.pad(np.where(gone, 0.0, values), ((0, 0), (1, 1), (1, 1)))
    exists = np.pad(np.ones(gone.shape), 1)
    total, given = np.zeros(count), np.zeros((count, len(values)))
    rows, columns, weights = [np.arange(count)], [np.arange(count)], []
    for (i, j), weight in _OFFSETS.items():
        there = (slice(1 + i, 1 + i + gone.shape[0]), slice(1 + j, 1 + j + gone.shape[1]))
        total += weight * exists[there][gone]
        given += weight * known[:, *there][:, gone].T
        neighbour = number[there][gone]
        unknown = neighbour >= 0
        rows.append(np.flatnonzero(unknown))
        columns.append(neighbour[unknown])
        weights.append(np.full(int(unknown.sum()), -weight))
    system = csc_matrix((np.concatenate([total, *weights]), (np.concatenate(rows), np.concatenate(columns))))
    solved = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    values[:, gone] = solved.solve(given).T
    return torch.from_numpy(values).to(frame)
