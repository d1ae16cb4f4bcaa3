"""Randomness that belongs to the sample: no global generator is ever read or advanced.

Every random number is drawn from a generator seeded by (seed, sample id, target, ...). So a result does not
depend on the batch size, the order of the images, the rank, or on a restart.
"""

from __future__ import annotations

import hashlib

import torch


def key_of(*parts: int | str) -> int:
    """A 63-bit key for a tuple of names and numbers; the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_of(device: torch.device, *parts: int | str) -> torch.Generator:
    """A generator on ``device`` that is seeded by ``parts`` alone."""
    return torch.Generator(device).manual_seed(key_of(*parts))
