"""Methods that look at a layer: Grad-CAM and LayerCAM by grad-cam, and ODAM for detectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from igos_pl.models import Classifier, ExplainableNetwork
from igos_pl.models.rcnn import RCNNDetector
from igos_pl.optional import imported
from igos_pl.solver.objective import Problem
from peers.explanation import Explanation, of_map, of_pixels
from peers.scores import score_of

# ODAM smooths gradients by a Gaussian of this many cells of the feature map.
_ODAM_SIGMA = 2.0


def grad_cam(network: ExplainableNetwork, problem: Problem, layer: str) -> Explanation:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the logit; one forward and backward pass.

    Args:
        network: a classifier.
        problem: of one row.
        layer: the name of the module that is looked at, the last convolutional one.
    """
    return _cam("GradCAM", network, problem, layer)


def layer_cam(network: ExplainableNetwork, problem: Problem, layer: str) -> Explanation:
    """LayerCAM (Jiang et al., TIP 2021) of the logit; the arguments are those of `grad_cam`."""
    return _cam("LayerCAM", network, problem, layer)


def _cam(method: str, network: ExplainableNetwork, problem: Problem, layer: str) -> Explanation:
    assert isinstance(network, Classifier)
    library = imported("pytorch_grad_cam", "bench", "Grad-CAM")
    targets = imported("pytorch_grad_cam.utils.model_targets", "bench", "Grad-CAM")
    # The weights are frozen: a gradient reaches the layer only if it is on its way to the image.
    image = problem.images.clone().requires_grad_()
    with getattr(library, method)(network.module, [network.module.get_submodule(layer)]) as cam:
        wanted = [targets.ClassifierOutputTarget(int(problem.targets.label[0]))]
        found = torch.from_numpy(cam(image, wanted)[0])
    return of_pixels(found)


def odam(network: ExplainableNetwork, problem: Problem) -> Explanation:
    """ODAM (Zhao and Chan, ICLR 2023): a detection's gradient times the activation, element by element.

    The sum over all levels of the feature pyramid that the detection's score reads, each upsampled to the
    finest level. One forward and backward pass.

    Args:
        network: Faster or Mask R-CNN.
        problem: of one row.
    """
    assert isinstance(network, RCNNDetector)
    features: dict[str, Tensor] = {}

    def keep(_: object, __: object, output: dict[str, Tensor]) -> None:
        features.update(output)

    handle = network.module.backbone.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            score = score_of(network, problem)(problem.images.clone().requires_grad_())
            gradients = torch.autograd.grad(score, list(features.values()), allow_unused=True)
    finally:
        handle.remove()
    levels = [
        odam_map(level.detach(), gradient)
        for level, gradient in zip(features.values(), gradients, strict=True)
        if gradient is not None
    ]
    finest = max((level.shape[-2:] for level in levels), key=lambda shape: shape[0])
    resized = [F.interpolate(level[None], finest, mode="bilinear", align_corners=False) for level in levels]
    size = (problem.images.shape[-2], problem.images.shape[-1])
    return of_map(torch.cat(resized).sum(0)[0], size)


def odam_map(level: Tensor, gradient: Tensor) -> Tensor:
    """``(1, h, w)``: the positive part of the sum over channels of smoothed gradient times activation."""
    kernel = 2 * min(round(2 * _ODAM_SIGMA), min(level.shape[-2:]) - 1) + 1
    smooth: Tensor = gaussian_blur(gradient, [kernel, kernel], [_ODAM_SIGMA, _ODAM_SIGMA])
    return (smooth * level).sum(1).relu()
