"""With which software and preset, and on which device, something was explained."""

from __future__ import annotations

import torch
import torchvision

import igos_pl
from igos_pl.settings import Attributes
from igos_pl.solver.presets import preset_of


def provenance(configuration: Attributes, device: torch.device) -> Attributes:
    """The preset that the settings come from, the software versions and the device.

    Versions and device may differ between the parts of a run.
    """
    preset = preset_of(configuration)
    return {
        **({"preset": preset} if preset else {}),
        "igos_pl": igos_pl.__version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
