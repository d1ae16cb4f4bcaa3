"""Networks that can be explained; each is a class with ``propose`` and ``score``."""

from igos_pl.models.base import ExplainableNetwork
from igos_pl.models.classifier import Classifier, EfficientNetLite0, TorchvisionClassifier

__all__ = ["Classifier", "EfficientNetLite0", "ExplainableNetwork", "TorchvisionClassifier"]
