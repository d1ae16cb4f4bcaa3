"""The software, the device and the preset of an explanation."""

from __future__ import annotations

import torch
import torchvision

import igos_pl
from igos_pl.settings import Attributes
from igos_pl.solver.presets import preset_of


def provenance(settings: Attributes, device: torch.device) -> Attributes:
    """The preset, software versions, threads and device, which may differ between the parts of a run.

    Args:
        settings: the explainer's settings.
        device: the device that it uses.
    """
    preset = preset_of(settings)
    return {
        **({"preset": preset} if preset else {}),
        "igos_pl": igos_pl.__version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
