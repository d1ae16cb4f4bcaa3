"""The numbers that the published code produced, iteration by iteration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GoldenClassifier
from torch import Tensor, nn

from igos_pl.data.targets import class_targets
from igos_pl.solver.methods import METHODS
from igos_pl.solver.micro_batches import MicroBatches
from igos_pl.solver.objective import Objective, ObjectiveSettings, Problem
from igos_pl.solver.optimize import optimize
from igos_pl.solver.optimizers import NAG, LineSearch

GOLDEN = Path(__file__).parent / "golden"
METHOD_KEYS = {"igos": "igos", "igosp": "igos+", "igospp": "igos++"}


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"case_{name}.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def problem_of(case: dict[str, Tensor], copies: int = 1) -> Problem:
    """The case's image; with copies, several images that are mirrored so that rows differ."""
    image, baseline = case["image"].float(), case["baseline"].float()
    images = torch.cat([image if i % 2 == 0 else image.flip(3) for i in range(copies)])
    baselines = torch.cat([baseline if i % 2 == 0 else baseline.flip(3) for i in range(copies)])
    label = case["label"].long().expand(copies)
    targets = class_targets(torch.arange(copies), label, torch.ones(copies))
    return Problem(images, baselines, targets, list(range(copies)))


@pytest.mark.parametrize("micro_batch", [7, 1000])
@pytest.mark.parametrize("opt", ["LS", "NAG"])
@pytest.mark.parametrize("method", METHOD_KEYS)
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_every_iteration(name: str, method: str, opt: str, micro_batch: int) -> None:
    case = load(name)
    l1, l2, alpha_ls, alpha_nag, _, steps, _ = case["hyper"].tolist()
    expected = case[f"{method}_{opt}_masks"].float()
    table = METHODS[METHOD_KEYS[method]]
    rows = 3  # the packed path: the middle row is another picture
    objective = Objective(
        GoldenClassifier(case),
        problem_of(case, rows),
        table,
        ObjectiveSettings(l1, l2, int(steps), noise=0.0),
        MicroBatches(micro_batch),
    )
    masks = nn.Parameter(case["init_mask"].float().repeat(rows, table.masks, 1, 1))
    optimizer = LineSearch([masks], alpha=alpha_ls) if opt == "LS" else NAG([masks], alpha=alpha_nag)
    seen: list[Tensor] = []
    alphas: list[Tensor] = []

    def record(done: int, total: int) -> None:
        seen.append(masks.detach().prod(1).clone())
        if isinstance(optimizer, LineSearch):
            alphas.append(optimizer.accepted.clone())

    optimize(objective, masks, optimizer, len(expected), on_iteration=record)
    found = torch.stack(seen, 1)
    for row in (0, 2):
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)
        if opt == "LS":
            steps_taken = torch.stack(alphas, 1)[row]
            torch.testing.assert_close(steps_taken.float(), case[f"{method}_LS_alphas"].float())
    assert not torch.allclose(found[1], expected, atol=1e-2)
