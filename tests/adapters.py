"""Small networks of other libraries with seeded weights, as folders and files; import it as ``adapters``.

Each skips the test if its library is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

PROMPTS = ["a photo of a cup", "a photo of a roof", "a drawing of a cat"]
CLASSES = {0: "an eider", 1: "a teal", 2: "a smew", 3: "a garganey"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def timm_weights(folder: Path, name: str = "test_resnet", **options: Any) -> str:
    """A weight file of one of timm's networks."""
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, pretrained=False, **options)
    torch.save(module.state_dict(), folder / f"{name}.pth")
    return str(folder / f"{name}.pth")


def vit_folder(folder: Path, size: int = 48) -> str:
    """An image classifier of transformers, for images of `size` pixels."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**SMALL, image_size=size, patch_size=8, id2label=CLASSES)
    model = transformers.ViTForImageClassification(config)
    spread(model)
    model.eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return str(folder)


def spread(model: nn.Module) -> None:
    """Seeded weights of which outputs differ between images."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("logit_scale"):
            weight.data.fill_(1.5)
        elif weight.ndim > 1 or "class_embedding" in name:
            weight.data = (
                torch.randn(weight.shape, generator=generator) * 1.4 / max(weight[0].numel(), 2) ** 0.5
            )


def save_tokenizer(folder: Path, transformers: Any, length: int) -> None:
    """One that knows the words of the prompts, and ends each sentence as CLIP's does."""
    tokenizers = pytest.importorskip("tokenizers")
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *words, "[END]"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    end = vocabulary["[END]"]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "$A [END]", special_tokens=[("[END]", end)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[END]",
        model_max_length=length,
    ).save_pretrained(folder)


def clip_folder(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 9}
    vision = {**SMALL, "image_size": 48, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = transformers.CLIPModel(config)
    spread(model)
    model.eval().save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    ).save_pretrained(folder)
    save_tokenizer(folder, transformers, 12)
    return str(folder)


def siglip_folder(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 64, "projection_size": 32}
    vision = {**SMALL, "image_size": 48, "patch_size": 8}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    spread(model)
    model.logit_scale.data.fill_(1.0)
    model.logit_bias.data.fill_(-0.5)
    model.eval().save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    save_tokenizer(folder, transformers, 64)
    return str(folder)


def open_clip_model(folder: Path) -> tuple[Any, str]:
    """A small model of random weights, in a folder as the Hugging Face hub has them."""
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**json.loads(json.dumps(config))).eval()
    spread(model)
    folder.mkdir(parents=True)
    preprocessing = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing})
    )
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return model, f"local-dir:{folder}"
