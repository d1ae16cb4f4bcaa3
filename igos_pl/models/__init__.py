"""Networks that can be explained; each is a class with ``propose`` and ``score``."""

from igos_pl.models.base import ExplainableNetwork
from igos_pl.models.classifier import Classifier, EfficientNetLite0, TorchvisionClassifier
from igos_pl.models.detection import Detections, Detector
from igos_pl.models.one_stage import DenseDetector, OneStageDetector
from igos_pl.models.two_stage import RCNN, TwoStageDetector
from igos_pl.models.yolo import YOLO, YOLOv3SPPDetector

__all__ = [
    "RCNN",
    "YOLO",
    "Classifier",
    "DenseDetector",
    "Detections",
    "Detector",
    "EfficientNetLite0",
    "ExplainableNetwork",
    "OneStageDetector",
    "TorchvisionClassifier",
    "TwoStageDetector",
    "YOLOv3SPPDetector",
]
