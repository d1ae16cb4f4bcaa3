"""Where the members of a tar file lie, so that each can be read without the others."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from igos_pl.errors import IgosError

_BLOCK = tarfile.BLOCKSIZE
_ENDS = b"\0" * _BLOCK
_SEARCHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file, or a damaged part of it.

    Attributes:
        name: of the file; empty for a damaged part.
        offset: of its content, in bytes.
        size: of its content, in bytes.
    """

    name: str
    offset: int
    size: int


def members_of(path: Path) -> Iterator[Member]:
    """The regular files of a tar file, in its order; only headers are read.

    After a damaged header, the search goes on at the next sound one.

    Raises:
        IgosError: if the file cannot be read, is compressed, or is not a tar file.
    """
    try:
        with path.open("rb") as file:
            _check_start(path, file)
            length = file.seek(0, 2)
            position = 0
            while position < length:
                members, position = _run_of_members(file, position)
                yield from members
                if position >= length or _is_end(file, position):
                    return
                sound = _next_header(file, position + _BLOCK, length)
                yield Member("", position, sound - position)
                position = sound
    except OSError as error:
        raise IgosError(f"Cannot read the shard {path}: {error.strerror or error}") from error


def _run_of_members(file: BinaryIO, position: int) -> tuple[list[Member], int]:
    """The members from a position up to the end or a damaged header, and the position of that."""
    file.seek(position)
    found: list[Member] = []
    try:
        archive = tarfile.TarFile(fileobj=file)
    except tarfile.TarError:
        return found, position
    while True:
        try:
            member = archive.next()
        except tarfile.TarError:  # the last member is cut off
            return found, archive.offset
        if member is None:
            return found, archive.offset
        if member.isreg():
            found.append(Member(member.name, member.offset_data, member.size))


def _check_start(path: Path, file: BinaryIO) -> None:
    head = file.read(_BLOCK)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:4] in (b"\xfd7zX", b"\x28\xb5\x2f\xfd"):
        raise IgosError(
            f"The shard {path} is compressed, so its members cannot be read one by one: decompress it"
            " (compression hardly makes images smaller)"
        )
    if head and head != _ENDS and not _is_header(head):
        raise IgosError(f"{path} is not a tar file: correct urls (--data.urls)")


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_end(file: BinaryIO, position: int) -> bool:
    file.seek(position)
    return file.read(_BLOCK) == _ENDS


def _next_header(file: BinaryIO, position: int, length: int) -> int:
    """The position of the next sound header; the file's length if there is none."""
    while position < length:
        file.seek(position)
        part = file.read(_SEARCHED_BYTES)
        for start in range(0, len(part), _BLOCK):
            if _is_header(part[start : start + _BLOCK]):
                return position + start
        position += _SEARCHED_BYTES
    return length
