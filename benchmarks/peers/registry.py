"""The peers by name: what their amounts mean, and what else decides their masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from igos_pl.models import ExplainableNetwork
from igos_pl.solver.objective import Problem
from peers.activations import grad_cam, layer_cam, odam
from peers.explanation import Explanation
from peers.gradients import gradient_shap, integrated_gradients, occlusion
from peers.greedy import greedy
from peers.partitions import Grid, slic
from peers.phase_win import phase_win
from peers.random_masks import d_rise, hsic, rise
from peers.scores import SubsetScores
from peers.vx_code import vx_code

# EfficientNet-Lite's layer. It is the best for Grad-CAM on the tuning half; for LayerCAM it is not tuned.
GRAD_CAM_LAYER = "bn2"
LAYER_CAM_LAYER = "bn2"


@dataclass(frozen=True)
class Picture:
    """What a peer may look at.

    Attributes:
        network: what is explained.
        problem: of one row.
        pixels: ``(3, H, W)`` uint8, the picture before normalisation.
    """

    network: ExplainableNetwork
    problem: Problem
    pixels: Tensor


@dataclass(frozen=True)
class Peer:
    """One family of methods.

    Attributes:
        label: what tables and figures call it.
        example: a name with its amount, for messages.
        explain: one target.
        kinds: ``photos``, ``detections`` or both: what it can explain.
        setting: what decides its masks beside its amount.
    """

    label: str
    example: str
    explain: Callable[[Picture, int], Explanation]
    kinds: tuple[str, ...] = ("photos", "detections")
    setting: str = ""

    @property
    def has_amount(self) -> bool:
        """Whether its name has an amount."""
        return "@" in self.example


def _by_score(
    method: Callable[[ExplainableNetwork, Problem, int], Explanation],
) -> Callable[..., Explanation]:
    return lambda picture, amount: method(picture.network, picture.problem, amount)


def _in_cells(search: Callable[[SubsetScores], Explanation]) -> Callable[[Picture, int], Explanation]:
    def explain(picture: Picture, side: int) -> Explanation:
        size = (picture.pixels.shape[-2], picture.pixels.shape[-1])
        return search(SubsetScores(picture.network, picture.problem, Grid(side, size)))

    return explain


def _in_superpixels(search: Callable[[SubsetScores], Explanation]) -> Callable[[Picture, int], Explanation]:
    def explain(picture: Picture, wanted: int) -> Explanation:
        return search(SubsetScores(picture.network, picture.problem, slic(picture.pixels, wanted)))

    return explain


PHOTOS, DETECTIONS = ("photos",), ("detections",)

PEERS: dict[str, Peer] = {
    "greedy": Peer("greedy, cells", "greedy@7", _in_cells(greedy)),
    "greedy-slic": Peer("greedy, superpixels", "greedy-slic@49", _in_superpixels(greedy)),
    "phasewin": Peer("PhaseWin, cells", "phasewin@7", _in_cells(phase_win)),
    "phasewin-slic": Peer("PhaseWin, superpixels", "phasewin-slic@49", _in_superpixels(phase_win)),
    "vx-code": Peer("VX-CODE, cells", "vx-code@7", _in_cells(vx_code)),
    "rise": Peer("RISE", "rise@2000", _by_score(rise)),
    "d-rise": Peer("D-RISE", "d-rise@2000", _by_score(d_rise), DETECTIONS),
    "hsic": Peer("HSIC attribution", "hsic@1500", _by_score(hsic)),
    "ig": Peer("integrated gradients", "ig@100", _by_score(integrated_gradients)),
    "gradient-shap": Peer("GradientSHAP", "gradient-shap@100", _by_score(gradient_shap)),
    "occlusion": Peer("occlusion", "occlusion@14", _by_score(occlusion)),
    "grad-cam": Peer(
        "Grad-CAM",
        "grad-cam",
        lambda picture, _: grad_cam(picture.network, picture.problem, GRAD_CAM_LAYER),
        PHOTOS,
        GRAD_CAM_LAYER,
    ),
    "layer-cam": Peer(
        "LayerCAM",
        "layer-cam",
        lambda picture, _: layer_cam(picture.network, picture.problem, LAYER_CAM_LAYER),
        PHOTOS,
        LAYER_CAM_LAYER,
    ),
    "odam": Peer("ODAM", "odam", lambda picture, _: odam(picture.network, picture.problem), DETECTIONS),
}
