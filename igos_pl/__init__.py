"""Optimised saliency masks (I-GOS, iGOS+, iGOS++) for whole data sets, on PyTorch Lightning.

Names are imported when they are first used, so that ``import igos_pl`` imports neither torch nor Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igos_pl.api import (
        Explanations,
        MaskAttribution,
        evaluate,
        explain,
        explain_func,
        import_saliency,
    )
    from igos_pl.callbacks import MaskWriter, OverlayWriter
    from igos_pl.data.regions import GivenLabelMaps, LabelMaps, RegionSource, Slic, segments_label_map
    from igos_pl.datamodules import (
        COCODataModule,
        DatasetDataModule,
        ImageFolderDataModule,
        ImageNetDataModule,
        LitDataDataModule,
        WebDatasetDataModule,
    )
    from igos_pl.errors import IgosError
    from igos_pl.explainer import Explainer
    from igos_pl.figures import draw
    from igos_pl.models import (
        Classifier,
        DenseDetector,
        EfficientNetLite0Classifier,
        HuggingFaceClassifier,
        HuggingFaceDetector,
        HuggingFaceSegmenter,
        OpenCLIPClassifier,
        RCNNDetector,
        Segmenter,
        TimmClassifier,
        TorchvisionClassifier,
        TorchvisionDenseDetector,
        TorchvisionRCNNDetector,
        TorchvisionSegmenter,
        UltralyticsDetector,
        YOLODetector,
        YOLOv3SPPDetector,
        ZeroShotClassifier,
    )
    from igos_pl.solver.starts import Start
    from igos_pl.store import MaskFile, merge
    from igos_pl.training import ExplainCallback

__version__ = "0.1.0"

__all__ = [
    "COCODataModule",
    "Classifier",
    "DatasetDataModule",
    "DenseDetector",
    "EfficientNetLite0Classifier",
    "ExplainCallback",
    "Explainer",
    "Explanations",
    "GivenLabelMaps",
    "HuggingFaceClassifier",
    "HuggingFaceDetector",
    "HuggingFaceSegmenter",
    "IgosError",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "LabelMaps",
    "LitDataDataModule",
    "MaskAttribution",
    "MaskFile",
    "MaskWriter",
    "OpenCLIPClassifier",
    "OverlayWriter",
    "RCNNDetector",
    "RegionSource",
    "Segmenter",
    "Slic",
    "Start",
    "TimmClassifier",
    "TorchvisionClassifier",
    "TorchvisionDenseDetector",
    "TorchvisionRCNNDetector",
    "TorchvisionSegmenter",
    "UltralyticsDetector",
    "WebDatasetDataModule",
    "YOLODetector",
    "YOLOv3SPPDetector",
    "ZeroShotClassifier",
    "draw",
    "evaluate",
    "explain",
    "explain_func",
    "import_saliency",
    "merge",
    "segments_label_map",
]

_HOMES = {
    "ExplainCallback": "training",
    "Explainer": "explainer",
    "Explanations": "api",
    "MaskAttribution": "api",
    "draw": "figures",
    "evaluate": "api",
    "explain": "api",
    "explain_func": "api",
    "GivenLabelMaps": "data.regions",
    "import_saliency": "api",
    "IgosError": "errors",
    "LabelMaps": "data.regions",
    "RegionSource": "data.regions",
    "Slic": "data.regions",
    "segments_label_map": "data.regions",
    "MaskFile": "store",
    "MaskWriter": "callbacks",
    "OverlayWriter": "callbacks",
    "Start": "solver.starts",
    "merge": "store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"igos_pl has no {name!r}; it has: {', '.join(__all__)}")
    home = _HOMES.get(name, "datamodules" if name.endswith("DataModule") else "models")
    return getattr(import_module(f"igos_pl.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
