"""Networks that can be explained: each family is one class with ``propose`` and ``score``.

A family takes anyone's own module (``Classifier``, ``RCNNDetector``, ...). Its subclasses build a known
network by its name (``TorchvisionClassifier``, ``TorchvisionRCNNDetector``, ...).
"""

from igos_pl.models.base import ExplainableNetwork
from igos_pl.models.classifier import Classifier
from igos_pl.models.dense import DenseDetector, TorchvisionDenseDetector
from igos_pl.models.detector import Detections, Detector
from igos_pl.models.huggingface_classifier import HuggingFaceClassifier
from igos_pl.models.huggingface_detection import HuggingFaceDetector
from igos_pl.models.packaged import EfficientNetLite0Classifier
from igos_pl.models.rcnn import RCNNDetector, TorchvisionRCNNDetector
from igos_pl.models.segmentation import HuggingFaceSegmenter, Segmenter, TorchvisionSegmenter
from igos_pl.models.timm_classifier import TimmClassifier
from igos_pl.models.torchvision_classifier import TorchvisionClassifier
from igos_pl.models.ultralytics_detection import UltralyticsDetector
from igos_pl.models.yolo import YOLODetector, YOLOv3SPPDetector
from igos_pl.models.zero_shot import OpenCLIPClassifier, ZeroShotClassifier

__all__ = [
    "Classifier",
    "DenseDetector",
    "Detections",
    "Detector",
    "EfficientNetLite0Classifier",
    "ExplainableNetwork",
    "HuggingFaceClassifier",
    "HuggingFaceDetector",
    "HuggingFaceSegmenter",
    "OpenCLIPClassifier",
    "RCNNDetector",
    "Segmenter",
    "TimmClassifier",
    "TorchvisionClassifier",
    "TorchvisionDenseDetector",
    "TorchvisionRCNNDetector",
    "TorchvisionSegmenter",
    "UltralyticsDetector",
    "YOLODetector",
    "YOLOv3SPPDetector",
    "ZeroShotClassifier",
]
