"""Seals: every result file begins with a head, which describes the file and has digests of every byte of it.

The head is in the HDF5 file's user block:

- a line with a digest of the rest of the head, and the head's size, a power of two;
- JSON: the digest of all that follows the head (``content``), the size of the file (``bytes``), the schema
  version, and fields that depend on the kind of file (`igos_pl.store.index`);
- zero bytes.

So one small read without HDF5 gives a head that is known to be whole. HDF5 may crash on a damaged file, so
the digest of the content is checked before HDF5 opens a file (but for large merged files, see
`igos_pl.store.files.open_result`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from igos_pl.errors import IgosError
from igos_pl.store.schema import SCHEMA_VERSION, check_version, damaged

Head = dict[str, Any]

HEAD_BYTES = 512  # the smallest head, and that of merged files

_MAGIC = b"igos-pl sealed result, blake2b "
_LINE = re.compile(_MAGIC + rb"([0-9a-f]{64}) (\d{10})\n")
_FIRST_BYTES = 1 << 16  # the head of a usual segment is not larger
_BLOCK_BYTES = 1 << 20

# The first bytes of files of earlier schema versions. Their seals are not checked.
_VERSION_2 = b"igos-pl result, blake2b "
_HDF5 = b"\x89HDF"

# Files whose seal was valid, by path, size, modification time and inode. Their seals are not checked again.
_checked: set[tuple[str, int, int, int]] = set()


def sealed(content: bytes, about: Mapping[str, Any]) -> bytes:
    """Put a head in front of an HDF5 file in memory.

    Args:
        content: the file without a user block.
        about: the fields of the head.
    """
    size, digest = HEAD_BYTES, hashlib.blake2b(content, digest_size=32).hexdigest()
    while (head := _head(about, digest, size, size + len(content))) is None:
        size *= 2
    return head + content


def seal(path: Path, about: Mapping[str, Any]) -> None:
    """Write the head of a file that has room for it.

    Args:
        path: a file whose user block has `HEAD_BYTES`, or a sealed file that was changed.
        about: the fields of the head.
    """
    with path.open("r+b") as file:
        match = _LINE.match(file.read(_FIRST_BYTES))
        size = int(match[2]) if match else HEAD_BYTES
        head = _head(about, _digest(file, size), size, os.fstat(file.fileno()).st_size)
        assert head is not None, f"the head of {path} is larger than {size} bytes"
        file.seek(0)
        file.write(head)


def read_head(path: Path) -> Head:
    """The fields of a file's head. The rest of the file is not read, but its size is checked.

    Raises:
        DamagedFileError: if the head is damaged, or the file has another size than it was written with.
        IgosError: if the file is missing, cannot be read, or is of another schema version.
    """
    with _opened(path) as file:
        return _read_head(file, path)[0]


def check_seal(path: Path) -> None:
    """Raise if any byte of a file is not as it was written.

    Raises:
        DamagedFileError: if a byte differs.
        IgosError: if the file is missing, cannot be read, or is of another schema version.
    """
    with _opened(path) as file:
        state = os.fstat(file.fileno())
        key = (str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino)
        if key in _checked:
            return
        head, size = _read_head(file, path)
        if head["content"] != _digest(file, size):
            raise damaged(path, "it is damaged, or was not written by igos-pl")
    _checked.add(key)


def cannot_read(path: Path, error: OSError) -> IgosError:
    """The error for a file that the system cannot read."""
    if not path.exists():
        return IgosError(f"Cannot read {path}: no such file")
    limit = error.errno in (errno.EMFILE, errno.ENFILE)
    advice = ". Close files, or raise the limit by ulimit -n" if limit else ""
    return IgosError(f"Cannot read {path}: {error.strerror or error}{advice}")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Others are refused: reading a pipe could wait for ever."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise damaged(path, "it is not a file")
            yield file
    except OSError as error:
        raise cannot_read(path, error) from error


def _head(about: Mapping[str, Any], content: str, size: int, file_size: int) -> bytes | None:
    """The head of a file; None if it needs more than ``size`` bytes."""
    fields = {"schema_version": SCHEMA_VERSION, **about, "content": content, "bytes": file_size}
    rest = b"%010d\n" % size + json.dumps(fields, separators=(",", ":")).encode()
    room = size - len(_MAGIC) - 64 - 1
    if len(rest) > room:
        return None
    rest = rest.ljust(room, b"\0")
    return _MAGIC + hashlib.blake2b(rest, digest_size=32).hexdigest().encode() + b" " + rest


def _read_head(file: BinaryIO, path: Path) -> tuple[Head, int]:
    """The head of an open file, and its size in bytes."""
    block = file.read(_FIRST_BYTES)
    match = _LINE.match(block)
    if match is None:
        raise _no_head(block, path)
    size = int(match[2])
    if size > len(block):
        block += file.read(size - len(block))
    if hashlib.blake2b(block[match.start(2) : size], digest_size=32).hexdigest().encode() != match[1]:
        raise damaged(path, "it is damaged")
    head: Head = json.loads(block[match.end() : size].rstrip(b"\0"))
    check_version(head["schema_version"], path)
    if head["bytes"] != os.fstat(file.fileno()).st_size:
        raise damaged(path, "it is damaged: it has another size than it was written with")
    return head, size


def _no_head(start: bytes, path: Path) -> IgosError:
    """The error for a file that does not begin with a head."""
    try:
        if start.startswith(_VERSION_2):
            check_version(2, path)
        elif start.startswith(_HDF5):
            with h5py.File(path, "r", locking=False) as file:
                check_version(file.attrs.get("schema_version"), path)
    except IgosError as error:
        return error
    except OSError:
        pass
    return damaged(path, "it is damaged, or was not written by igos-pl")


def _digest(file: BinaryIO, start: int) -> str:
    """The digest of all that comes after the head."""
    digest = hashlib.blake2b(digest_size=32)
    file.seek(start)
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
