"""Zero-shot classifiers, CLIP and SigLIP: the classes are sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igos_pl.checks import suggestion
from igos_pl.data.library_preprocessing import ImageProcessorTransform, PictureTransform, input_size_of
from igos_pl.errors import IgosError
from igos_pl.models.base import texts
from igos_pl.models.classifier import Classifier
from igos_pl.models.pretrained import (
    config_digest,
    pretrained_model,
    pretrained_part,
    shown_name,
    transformers_for,
)
from igos_pl.models.weights import load_weights
from igos_pl.optional import imported
from igos_pl.settings import Attributes

_FOLDER, _HUB = "local-dir:", "hf-hub:"


class TextSimilarity(nn.Module):
    """Maps images ``(B, C, H, W)`` to their similarities ``(B, classes)`` to fixed sentences.

    Args:
        image_features: maps images to features ``(B, D)``.
        text_features: ``(classes, D)``, the features of the sentences.
        scale: the factor of the cosine similarities.
        bias: added to the scaled similarities; None for 0.
    """

    text: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self, image_features: nn.Module, text_features: Tensor, scale: Tensor, bias: Tensor | None
    ) -> None:
        super().__init__()
        self.image_features = image_features
        self.register_buffer("text", F.normalize(text_features.detach(), dim=1).contiguous())
        self.register_buffer("scale", scale.detach().clone().squeeze())
        self.register_buffer("bias", scale.new_zeros(()) if bias is None else bias.detach().clone().squeeze())

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        features = F.normalize(self.image_features(images), dim=1)
        return features @ self.text.T.to(features.dtype) * self.scale + self.bias


class ZeroShotClassifier(Classifier):
    """CLIP or SigLIP of transformers: each class is a sentence that may describe the image.

    The sentences are encoded once, and are part of a run's identity.

    Args:
        name: a folder that ``save_pretrained`` wrote (model, image processor and tokenizer), or a name on the
            hub.
        prompts: a sentence for each class, as ``a photo of a cat``.
        class_names: the names of the classes in results; by default the sentences.
        output: whether scores are the softmax over the sentences or a sigmoid for each; by default what the
            model was trained with: the softmax for CLIP, the sigmoid for SigLIP.
        **classifier: see `Classifier`.
    """

    def __init__(
        self,
        name: str,
        prompts: list[str],
        class_names: list[str] | None = None,
        output: Literal["softmax", "sigmoid"] | None = None,
        **classifier: Any,
    ) -> None:
        transformers = transformers_for("ZeroShotClassifier")
        prompts, names = _checked_texts(prompts, class_names)
        model = pretrained_model(transformers.AutoModel, name)
        if not all(
            hasattr(model, part) for part in ("get_text_features", "get_image_features", "logit_scale")
        ):
            raise IgosError(f"{name} is a {type(model).__name__}, but must be a CLIP or SigLIP model")
        tokens = _tokens(model, pretrained_part(transformers.AutoTokenizer, name), prompts)
        preprocessing = ImageProcessorTransform(pretrained_part(transformers.AutoImageProcessor, name))
        input_size = input_size_of(preprocessing, name)
        bias = getattr(model, "logit_bias", None)
        model.eval()
        with torch.no_grad():
            text = _pooled(model.get_text_features(**tokens))
            module = TextSimilarity(_ImageFeatures(model), text, model.logit_scale.exp(), bias).eval()
            probe = torch.linspace(-1, 1, 3 * input_size[0] * input_size[1]).reshape(1, 3, *input_size)
            expected = model(**tokens, pixel_values=probe).logits_per_image
            if not torch.allclose(module(probe), expected, rtol=1e-3, atol=1e-3):
                raise IgosError(f"{name} is a {type(model).__name__}, which scores sentences in another way")
        if hasattr(model, "text_model"):
            del model.text_model  # no longer needed
        super().__init__(
            module,
            class_names=names,
            output=output or ("softmax" if bias is None else "sigmoid"),
            input_size=input_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            name=shown_name(name),
            **classifier,
        )
        self.prompts = prompts
        self.preprocessing = preprocessing
        self._config = config_digest(model.config)

    def facts(self) -> Attributes:
        """The facts of all networks, and a digest of the model's configuration."""
        return {**super().facts(), "config": self._config}


class OpenCLIPClassifier(Classifier):
    """A model of open_clip: each class is a sentence that may describe the image.

    The sentences are encoded once, and are part of a run's identity.

    Args:
        name: as in ``open_clip.list_models()`` (``ViT-B-32``); ``hf-hub:OWNER/NAME`` for a model on the
            Hugging Face hub; ``local-dir:FOLDER`` for a folder downloaded from it.
        prompts: see `ZeroShotClassifier`.
        weights: one of the model's tags (``laion2b_s34b_b79k``), which is downloaded once, or a file; None
            if ``name`` is a folder or on the hub.
        class_names: see `ZeroShotClassifier`.
        output: see `ZeroShotClassifier`.
        **classifier: see `Classifier`.
    """

    def __init__(
        self,
        name: str,
        prompts: list[str],
        weights: str | None = None,
        class_names: list[str] | None = None,
        output: Literal["softmax", "sigmoid"] | None = None,
        **classifier: Any,
    ) -> None:
        open_clip = imported("open_clip", "openclip", "OpenCLIPClassifier")
        prompts, names = _checked_texts(prompts, class_names)
        model = _open_clip_model(open_clip, name, weights)
        model.eval()
        tokens = open_clip.get_tokenizer(name)(prompts)
        with torch.no_grad():
            text = model.encode_text(tokens)
        bias = getattr(model, "logit_bias", None)
        config = open_clip.transform.PreprocessCfg(
            **open_clip.transform.merge_preprocess_dict(
                open_clip.transform.PreprocessCfg(), getattr(model.visual, "preprocess_cfg", {})
            )
        )
        *steps, convert, _, _ = open_clip.transform.image_transform_v2(config, is_train=False).transforms
        about = json.dumps([config.interpolation, config.resize_mode, config.fill_color])
        preprocessing = PictureTransform([*steps, convert], about)
        super().__init__(
            TextSimilarity(_First(model.visual), text, model.logit_scale.exp(), bias),
            class_names=names,
            output=output or ("softmax" if bias is None else "sigmoid"),
            input_size=input_size_of(preprocessing, name),
            mean=config.mean,
            std=config.std,
            name=Path(name.removeprefix(_FOLDER)).name if name.startswith(_FOLDER) else name,
            **classifier,
        )
        self.prompts = prompts
        self.preprocessing = preprocessing


class _ImageFeatures(nn.Module):
    """The image half of a model of transformers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=images))


class _First(nn.Module):
    """A network that returns only the first of its outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(images)
        features: Tensor = output[0] if isinstance(output, tuple) else output
        return features


def _pooled(output: Any) -> Tensor:
    """The features ``(B, D)`` in the output of a model of transformers."""
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def _checked_texts(prompts: Sequence[str], class_names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The sentences, and the names of the classes.

    Raises:
        IgosError: if there is no sentence, a sentence is empty, or the number of names differs.
    """
    wanted = "a list with a sentence for each class"
    sentences = texts("prompts", prompts, wanted)
    if not sentences or not all(sentences):
        raise IgosError(f"prompts is {prompts!r}, but must be {wanted}")
    names = texts("class_names", class_names) or sentences
    if len(names) != len(sentences):
        raise IgosError(
            f"There are {len(names)} class_names, but {len(sentences)} prompts: give one for each"
        )
    return sentences, names


def _tokens(model: Any, tokenizer: Any, prompts: list[str]) -> Any:
    """The tokens of the sentences. SigLIP's are padded to a fixed length, as in its training.

    Raises:
        IgosError: if a sentence is too long for the model.
    """
    longest = getattr(model.config.text_config, "max_position_embeddings", None)
    for prompt in prompts:
        length = len(tokenizer(prompt)["input_ids"])
        if longest is not None and length > longest:
            raise IgosError(
                f"The prompt {prompt!r} has {length} tokens, but the model takes {longest} at most"
            )
    if "siglip" in model.config.model_type:
        length = min(64, longest or 64)
        return tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
    return tokenizer(prompts, padding=True, return_tensors="pt")


def _open_clip_model(open_clip: Any, name: str, weights: str | None) -> Any:
    """A model of open_clip with its weights.

    Raises:
        IgosError: if there is no such model, or its weights cannot be loaded.
    """
    if not name.startswith((_FOLDER, _HUB)):
        if name not in open_clip.list_models():
            raise IgosError(f"open_clip has no model {name!r}: {suggestion(name, open_clip.list_models())}")
        tags = open_clip.list_pretrained_tags_by_model(name)
        if weights not in tags:
            if weights is None or not Path(weights).is_file():
                raise IgosError(
                    f"weights is {weights!r}, which is neither a file nor one of {name}'s tags:"
                    f" {', '.join(tags) or 'none'}"
                )
            model = open_clip.create_model(name, load_weights=False)
            load_weights(model, weights, name)
            return model
    try:
        return open_clip.create_model_from_pretrained(
            name, pretrained=weights, return_transform=False, weights_only=True
        )
    except Exception as error:  # open_clip, huggingface_hub and their HTTP clients raise nearly anything
        reason = " ".join(str(error).split())[:300]
        raise IgosError(
            f"{name} cannot be loaded ({type(error).__name__}: {reason}). Without internet: download the"
            " model from the Hugging Face hub into a folder elsewhere, copy the folder here, and set name to"
            " local-dir:FOLDER"
        ) from error
