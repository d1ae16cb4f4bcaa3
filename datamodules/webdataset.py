"""WebDataset's tar files."""

from __future__ import annotations

import glob
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.images import check_bytes, decode_image, picture_endings
from igos_pl.data.labels import ClassLabels
from igos_pl.data.text import first_few
from igos_pl.data.wording import counted
from igos_pl.datamodules.base import SampleDataModule
from igos_pl.datamodules.samples import Sample
from igos_pl.datamodules.tar_index import Member, members_of
from igos_pl.errors import IgosError, UnreadError
from igos_pl.optional import imported

# The members that hold labels: a number or a class name; a JSON object with a key "label" or "cls".
_LABELS = ("cls", "json")

# Members with WebDataset's own metadata.
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class TarSample(Sample):
    """A sample of a shard.

    Attributes:
        shard: the tar file.
        image: its picture; None if it has none.
        label: the member with its label; None if it has none.
        classes: of the network.
        problem: why it has no picture.
    """

    knows_truth: ClassVar[bool] = False

    shard: Path = field(kw_only=True)
    image: Member | None = field(kw_only=True)
    label: Member | None = field(kw_only=True)
    classes: ClassLabels = field(kw_only=True)
    problem: str = field(kw_only=True, default="")

    def load(self) -> tuple[Image.Image | Tensor, GroundTruth]:
        """See `Sample.load`."""
        if self.image is None:
            raise IgosError(self.problem)
        label = -1 if self.label is None else _label(self.label, self._content(self.label), self.classes)
        return decode_image(self._content(self.image)), GroundTruth(label)

    def _content(self, member: Member) -> bytes:
        check_bytes(member.size)
        try:
            with self.shard.open("rb") as file:
                file.seek(member.offset)
                content = file.read(member.size)
        except (OSError, MemoryError) as error:
            reason = error.strerror if isinstance(error, OSError) else "too little memory"
            raise UnreadError(f"cannot be read: {reason or error}") from error
        if len(content) < member.size:
            raise IgosError(f"{member.name} is cut off after {len(content):,} of {member.size:,} bytes")
        return content


class WebDatasetDataModule(SampleDataModule):
    """Tar files as WebDataset reads them: members with the same name before the first dot are one sample.

    The headers of all shards are read when a run starts. From then on, samples are read one by one, so that a
    run can share and resume them like the files of a folder. A batch takes neighbouring samples.

    A sample's picture is its member with an ending such as ``jpg`` or ``png``. Its label is its member
    ``cls`` (a number or a class name), or the entry ``label`` or ``cls`` of its member ``json``.

    Args:
        urls: the shards, on a file system that all processes see: a path with braces
            (``shards/{000..099}.tar``) or wildcards (``shards/*.tar``), or a list. Shards must not be
            compressed.
        image: the picture's ending, needed only if samples have several pictures.
        shard_ids: whether an id is ``shard.tar/key`` instead of the key (WebDataset's ``__key__``): needed if
            keys occur in more than one shard.
        **data: see `SampleDataModule`.
    """

    def __init__(
        self,
        urls: str | list[str],
        image: str | None = None,
        shard_ids: bool = False,
        **data: Any,
    ) -> None:
        super().__init__(**data)
        given = [urls] if isinstance(urls, str) else list(urls)
        if not any(given):
            raise IgosError("urls is empty: set urls (--data.urls) to the tar files")
        for url in given:
            if re.match(r"pipe:|[a-z0-9+]+://", url) and not url.startswith("file://"):
                raise IgosError(
                    f"{url} is not a path. Samples are read one by one, for which remote storage is too slow:"
                    " copy the shards to a disk, or mount the storage"
                )
        self._given = [str(Path(url.removeprefix("file://")).absolute()) for url in given]
        self.urls = self._given[0] if len(given) == 1 else self._given
        self.image = image
        self.shard_ids = shard_ids

    def find_samples(self) -> list[Sample]:
        """A sample for each key, in the order of the shards and of their members."""
        classes = self.class_labels()
        samples: list[Sample] = []
        for shard in _shards(self._given):
            samples += self._samples_of(shard, classes)
        if not any(isinstance(sample, TarSample) and sample.image for sample in samples):
            found = f"{len(samples)} samples, but none of them has a picture" if samples else "no samples"
            raise IgosError(f"{self.urls} has {found}: there is nothing to explain")
        twice = [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]
        if twice and not self.shard_ids:
            raise IgosError(
                f"Samples share {counted(len(twice), 'key')} ({first_few(twice)}), so keys do not identify"
                " the results: set shard_ids=True (--data.shard_ids true)"
            )
        return samples

    def _samples_of(self, shard: Path, classes: ClassLabels) -> Iterator[TarSample]:
        for key, members in _grouped(shard):
            name = f"{shard.name}/{key}" if self.shard_ids else key
            image, problem = self._picture(shard, key, members)
            label = next((members[ending] for ending in _LABELS if ending in members), None)
            yield TarSample(
                name if members else f"{shard.name}@{key}",
                f"{shard}/{image.name if image else key}",
                shard=shard,
                image=image,
                label=label,
                classes=classes,
                problem=problem,
            )

    def _picture(self, shard: Path, key: str, members: Mapping[str, Member]) -> tuple[Member | None, str]:
        """A sample's picture, or why it has none."""
        if not members:
            return None, f"{shard} is damaged at byte {key}: what was there is lost"
        if self.image is not None:
            wanted = self.image.lower().lstrip(".")
            found = [ending for ending in members if ending == wanted]
        else:
            pictures = picture_endings()
            found = [ending for ending in members if f".{ending.rpartition('.')[2]}" in pictures]
            plain = [ending for ending in found if "." not in ending]
            found = plain if len(plain) == 1 else found
        if not found:
            what = "picture" if self.image is None else f"member {wanted}"
            return None, f"the sample has no {what}; its members: {', '.join(members)}"
        if len(found) > 1:
            raise IgosError(
                f"The sample {key} in {shard} has several pictures ({', '.join(found)}): set image"
                " (--data.image) to the ending of the one to explain"
            )
        return members[found[0]], ""


def _shards(urls: Sequence[str]) -> list[Path]:
    """The tar files, in the order given; those of a pattern in the order of their names.

    Raises:
        IgosError: if a pattern matches nothing, or webdataset is not installed.
    """
    expand_urls = _webdataset("shardlists").expand_urls
    shards: list[Path] = []
    for url in (expanded for given in urls for expanded in expand_urls(given)):
        if Path(url).exists() or not glob.has_magic(url):
            shards.append(Path(url))
            continue
        matches = sorted(glob.glob(url, recursive=True))
        if not matches:
            raise IgosError(f"No file matches {url}: correct urls (--data.urls)")
        shards += map(Path, matches)
    return shards


def _grouped(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """The keys of a shard, with the members of each by their endings, as WebDataset groups them.

    A damaged part of the shard has no members, and its position as its key.
    """
    base_plus_ext = _webdataset("tariterators").base_plus_ext
    current: str | None = None
    members: dict[str, Member] = {}
    for member in members_of(shard):
        if not member.name:
            yield str(member.offset), {}
            continue
        key, ending = base_plus_ext(member.name)
        if key is None or _META.match(member.name):
            continue
        if key != current and current is not None:
            yield current, members
            members = {}
        current = key
        ending = ending.lower()
        if ending in members:
            raise IgosError(f"The shard {shard} has the member {member.name} twice: write the shard again")
        members[ending] = member
    if current is not None:
        yield current, members


def _label(member: Member, content: bytes, classes: ClassLabels) -> int:
    """The label that a member holds; -1 if it says that, or is a JSON object without a label.

    Raises:
        IgosError: if the label is neither a number nor a class of the network, or the JSON is not valid.
    """
    text = content.decode("utf-8", "replace").strip()
    if member.name.lower().endswith(".json"):
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise IgosError(f"{member.name} is not valid JSON: {error}") from error
        known = entries if isinstance(entries, dict) else {}
        label = next((known[key] for key in ("label", "cls") if known.get(key) is not None), -1)
        text = str(int(label) if isinstance(label, float) and label.is_integer() else label)
    return -1 if text == "-1" else classes.label_in(text)


def _webdataset(module: str) -> Any:
    return imported(f"webdataset.{module}", "webdataset", "WebDatasetDataModule")
