"""Timm's classifiers by name, with the preprocessing that each was evaluated with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from igos_pl.checks import suggestion
from igos_pl.data import imagenet
from igos_pl.data.library_preprocessing import PictureTransform
from igos_pl.errors import IgosError
from igos_pl.models.base import size_of
from igos_pl.models.classifier import Classifier
from igos_pl.optional import imported

_LOCAL, _HUB = "local-dir:", "hf-hub:"
_PICTURE_MODES = {1: "L", 3: "RGB"}


class TimmClassifier(Classifier):
    """One of timm's classifiers, with timm's own preprocessing and class names.

    Args:
        name: as in ``timm.list_models()``, with or without the tag of its weights (``resnet50.a1_in1k``);
            ``hf-hub:OWNER/NAME`` for a model on the Hugging Face hub; ``local-dir:FOLDER`` for a folder that
            timm has saved, or that was downloaded from the hub.
        weights: a file with the weights; by default timm's pretrained ones, which are downloaded once, or
            those of the folder.
        num_classes: number of classes of the weight file; by default that of timm's weights.
        in_chans: number of channels of the input; by default that of timm's weights, nearly always 3. For
            another number, timm adapts the pretrained weights of the first layer.
        input_size: height and width of the input in pixels, or the side of a square one; by default those
            that the weights were evaluated with.
        mean: the mean of each channel; by default timm's.
        std: the standard deviation of each channel; by default timm's.
        class_names: in label order, or ``imagenet``; by default those that timm knows for its weights.
        **classifier: see `Classifier`.
    """

    def __init__(
        self,
        name: str = "resnet50",
        weights: str | None = None,
        num_classes: int | None = None,
        in_chans: int | None = None,
        input_size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: list[str] | Literal["imagenet"] | None = None,
        **classifier: Any,
    ) -> None:
        timm = imported("timm", "timm", "TimmClassifier")
        pretrained = weights is None and not name.startswith(_LOCAL)
        wanted: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans}
        config = _pretrained_cfg(timm, name, pretrained)
        if weights is None and num_classes not in (None, config.get("num_classes")):
            raise IgosError(
                f"num_classes is {num_classes}, but timm's weights of {name} have {config.get('num_classes')}"
                " classes: set weights to the file of your own weights"
            )
        if weights is None and name.startswith(_LOCAL):
            weights = _weights_in(Path(name.removeprefix(_LOCAL)))
        # Only networks whose tensors depend on the input's size accept it.
        if input_size is not None and config.get("fixed_input_size"):
            wanted["img_size"] = size_of(input_size)
        module = _built(timm, name, pretrained, {k: v for k, v in wanted.items() if v is not None})
        classes = int(module.num_classes)  # type: ignore[arg-type]
        if classes < 1:
            raise IgosError(f"timm's {name} has no classes: it only computes features")
        data = _data_config(timm, module, in_chans, input_size, mean, std)
        if class_names is None and num_classes in (None, config.get("num_classes")):
            class_names = _class_names(timm, module, classes)
        folder = name.removeprefix(_LOCAL)
        super().__init__(
            module,
            weights=weights,
            input_size=data["input_size"][1:],
            mean=data["mean"],
            std=data["std"],
            class_names=class_names,
            name=name if folder == name else Path(folder).name,
            **classifier,
        )
        self.num_classes = classes
        self.in_chans = self.channels
        if self.channels in _PICTURE_MODES:
            steps = timm.data.create_transform(**data, normalize=False).transforms[:-1]  # without ToTensor
            about = json.dumps({key: data[key] for key in ("interpolation", "crop_pct", "crop_mode")})
            self.preprocessing = PictureTransform(steps, about, _PICTURE_MODES[self.channels])


def _pretrained_cfg(timm: Any, name: str, pretrained: bool) -> dict[str, Any]:
    """What timm knows of a model before it is built; nothing for models on the hub.

    Raises:
        IgosError: if there is no such model, or it has no weights although they are wanted.
    """
    if name.startswith(_LOCAL):
        return _saved_cfg(Path(name.removeprefix(_LOCAL)))
    if name.startswith(_HUB):
        return {}
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise IgosError(
            f"timm has no model {name!r}: {suggestion(architecture, timm.list_models())} All:"
            " timm.list_models(). Models on the Hugging Face hub are hf-hub:OWNER/NAME, folders"
            " local-dir:FOLDER"
        )
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise IgosError(f"timm has no weights {tag!r} of {architecture}, but: {', '.join(tagged) or 'none'}")
    config: dict[str, Any] = timm.get_pretrained_cfg(name).to_dict()
    if pretrained and not tagged:
        raise IgosError(f"timm has no pretrained weights of {name}: set weights to a file of your own")
    return config


def _saved_cfg(folder: Path) -> dict[str, Any]:
    """What the ``config.json`` of a folder says.

    Raises:
        IgosError: if there is no such file of timm.
    """
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {**saved.get("pretrained_cfg", {}), "num_classes": saved["num_classes"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IgosError(
            f"{folder} has no config.json of timm's ({type(error).__name__}: {error}): name a folder that"
            " timm has saved, or that was downloaded from the Hugging Face hub"
        ) from error


def _weights_in(folder: Path) -> str:
    """The weight file of a folder.

    Raises:
        IgosError: if there is no weight file, or more than one.
    """
    for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt"):
        files = sorted(folder.glob(pattern))
        if len(files) == 1:
            return str(files[0])
        if files:
            raise IgosError(
                f"{folder} has several weight files ({files[0].name}, {files[1].name}): set weights to one"
            )
    raise IgosError(f"{folder} has no weight file (.safetensors, .bin or .pth)")


def _built(timm: Any, name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """The network, with timm's weights if they are wanted.

    Raises:
        IgosError: if the weights cannot be loaded; the message says what to do by hand.
    """
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:  # timm, huggingface_hub and their HTTP clients raise nearly anything
        reason = (str(error).splitlines() or [""])[0]
        if not pretrained:
            raise IgosError(f"timm cannot build {name} ({type(error).__name__}: {reason})") from error
        where = name.removeprefix(_HUB) if name.startswith(_HUB) else _hub_id(timm, name)
        raise IgosError(
            f"The pretrained weights of timm's {name} could not be loaded ({type(error).__name__}: {reason})."
            f" Without internet: download https://huggingface.co/{where} into a folder elsewhere, copy the"
            " folder here, and set name to local-dir:FOLDER; or set weights to a file of your own"
        ) from error
    return module


def _hub_id(timm: Any, name: str) -> str:
    """The name on the Hugging Face hub of the weights of one of timm's models."""
    config = timm.get_pretrained_cfg(name)
    where = str(config.hf_hub_id or "timm/")
    tag = f".{config.tag}" if config.tag else ""
    return f"{where}{config.architecture}{tag}" if where.endswith("/") else where


def _data_config(
    timm: Any,
    module: Any,
    in_chans: int | None,
    input_size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict[str, Any]:
    """The settings of timm's preprocessing: input_size (C, H, W), mean, std, interpolation, crop."""
    data: dict[str, Any] = timm.data.resolve_model_data_config(module)
    channels, height, width = data["input_size"]
    channels = in_chans or channels
    size = (height, width) if input_size is None else size_of(input_size)
    for key, given in (("mean", mean), ("std", std)):
        values = tuple(given or data[key])
        # Timm's own loaders do the same for another number of channels.
        data[key] = values if len(values) == channels else (sum(values) / len(values),) * channels
    return {**data, "input_size": (channels, *size)}


def _class_names(timm: Any, module: Any, classes: int) -> list[str] | None:
    """The names that timm knows for its pretrained weights, in label order."""
    config = module.pretrained_cfg
    names, descriptions = config.get("label_names"), config.get("label_descriptions") or {}
    if names:
        keys = [names[str(i)] for i in range(classes)] if isinstance(names, dict) else list(names)
        return [str(descriptions.get(key, key)) for key in keys]
    subset = timm.data.infer_imagenet_subset(module)
    if subset is None:
        return None
    info = timm.data.ImageNetInfo(subset)
    if info.label_names() == list(imagenet.index_of_wordnet_id()):
        return list(imagenet.class_names())  # shorter than WordNet's lists of synonyms, and all different
    return [str(text) for text in info.label_descriptions()]
