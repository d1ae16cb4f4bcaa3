"""Metrics that remove random cells: infidelity (Captum) and MuFidelity (Quantus).

Both work on cells instead of pixels: their input is 1 for each cell that is shown, and the network sees the
image blended with its baseline by these cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from igos_pl.judging.rows import Rows, seeded
from igos_pl.optional import imported

# The share of the cells that MuFidelity removes at a time.
_SUBSET = 0.2


def infidelity(rows: Rows) -> dict[str, Tensor]:
    """Captum's infidelity (Yeh et al., NeurIPS 2019) for random squares of cells, normalised.

    The score should fall by the sum of the saliency in the square, up to one factor for the whole mask.
    """
    captum = imported("captum.metrics", "evaluate", "infidelity")
    found = []
    for row in range(len(rows)):
        generator = torch.Generator().manual_seed(rows.problem.keys[row])

        def perturb(shown: Tensor, generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
            removed = _squares(shown, generator)
            return removed, shown - removed

        def forward(shown: Tensor, row: int = row) -> Tensor:
            return rows.score_shown(shown[:, 0], torch.full((len(shown),), row, device=shown.device))

        saliency = rows.saliency[row : row + 1].unsqueeze(1)
        value = captum.infidelity(
            forward,
            perturb,
            torch.ones_like(saliency),
            saliency,
            n_perturb_samples=rows.samples,
            normalize=True,
        )
        found.append(float(value))
    return {"infidelity": rows.masks.new_tensor(found)}


def _squares(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random square of cells in each of the maps ``(B, 1, s, s)``: 1 inside and 0 outside."""
    height, width = like.shape[-2:]
    squares = torch.zeros_like(like)
    for one in squares:
        side = int(torch.randint(1, min(height, width) + 1, (), generator=generator))
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        one[0, top : top + side, left : left + side] = 1
    return squares


def mufidelity(rows: Rows) -> dict[str, Tensor]:
    """Quantus' faithfulness correlation (Bhatt et al., IJCAI 2020), often called MuFidelity.

    Pearson's correlation between the saliency of random fifths of the cells and the fall of the score when
    they are removed.
    """
    quantus = imported("quantus", "evaluate", "MuFidelity")
    saliency = rows.saliency.unsqueeze(1).cpu().numpy()
    subset = max(1, round(_SUBSET * saliency[0].size))
    found = []
    for row in range(len(rows)):  # one at a time, so that each draws its own subsets
        if saliency[row].min() == saliency[row].max():
            found.append(float("nan"))  # Quantus refuses it, and there is no correlation
            continue
        metric = quantus.FaithfulnessCorrelation(
            nr_runs=rows.samples,
            subset_size=subset,
            perturb_baseline=0.0,
            abs=False,
            normalise=False,
            return_aggregate=False,
            disable_warnings=True,
        )
        with seeded(rows.problem.keys[row]), np.errstate(invalid="ignore", divide="ignore"):
            found += metric(
                model=_Shown(rows, row).eval(),
                x_batch=np.ones_like(saliency[row : row + 1]),
                y_batch=np.zeros(1, np.int64),
                a_batch=saliency[row : row + 1],
                device=str(rows.masks.device),
                channel_first=True,
            )
    return {"mufidelity": rows.masks.new_tensor(found)}


class _Shown(nn.Module):
    """A network whose input are the cells that are shown, and whose only output is the row's score."""

    def __init__(self, rows: Rows, row: int) -> None:
        super().__init__()
        self._rows, self._row = rows, row

    def forward(self, shown: Tensor) -> Tensor:
        """Scores ``(B, 1)`` of ``(B, 1, s, s)``."""
        row = torch.full((len(shown),), self._row, device=shown.device)
        return self._rows.score_shown(shown[:, 0], row).unsqueeze(1)
