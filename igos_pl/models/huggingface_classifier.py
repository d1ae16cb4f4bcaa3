"""Image classifiers of Hugging Face's transformers, by folder or hub name."""

from __future__ import annotations

from typing import Any, Literal

from igos_pl.data.library_preprocessing import ImageProcessorTransform, input_size_of
from igos_pl.models.base import texts
from igos_pl.models.classifier import Classifier
from igos_pl.models.pretrained import (
    ChannelsReversed,
    config_digest,
    pretrained_model,
    pretrained_part,
    shown_name,
    transformers_for,
)
from igos_pl.settings import Attributes


class HuggingFaceClassifier(Classifier):
    """An image classifier of transformers, with its image processor and its class names.

    Args:
        name: a folder that ``save_pretrained`` wrote, with the image processor in it; or a name on the hub.
        class_names: in label order, or ``imagenet``; by default the model's ``id2label``.
        output: whether scores are the softmax or the sigmoid of the logits; by default as in
            transformers' pipeline: the sigmoid for multi-label models and for those with a single class.
        **classifier: see `Classifier`.
    """

    def __init__(
        self,
        name: str,
        class_names: list[str] | Literal["imagenet"] | None = None,
        output: Literal["softmax", "sigmoid"] | None = None,
        **classifier: Any,
    ) -> None:
        transformers = transformers_for("HuggingFaceClassifier")
        module = pretrained_model(transformers.AutoModelForImageClassification, name)
        preprocessing = ImageProcessorTransform(pretrained_part(transformers.AutoImageProcessor, name))
        config = module.config
        if preprocessing.reverses:
            module = ChannelsReversed(module)
        names = class_names if isinstance(class_names, str) else texts("class_names", class_names)
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        super().__init__(
            module,
            class_names=names or [config.id2label[label] for label in range(config.num_labels)],
            output=output or ("sigmoid" if several else "softmax"),
            input_size=input_size_of(preprocessing, name),
            mean=preprocessing.mean,
            std=preprocessing.std,
            name=shown_name(name),
            **classifier,
        )
        self.preprocessing = preprocessing
        self._config = config_digest(config)

    def facts(self) -> Attributes:
        """The facts of all networks, and a digest of the model's configuration."""
        return {**super().facts(), "config": self._config}
