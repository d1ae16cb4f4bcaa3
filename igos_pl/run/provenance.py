"""With which software, and on which device, something was explained."""

from __future__ import annotations

import torch
import torchvision

import igos_pl
from igos_pl.settings import Attributes


def provenance(device: torch.device) -> Attributes:
    """The software versions and the device. They may differ between the parts of a run."""
    return {
        "igos_pl": igos_pl.__version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
