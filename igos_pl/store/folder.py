"""A run's folder: its files, the configuration that it belongs to, and the images that are missing."""

from __future__ import annotations

import datetime
import errno
import json
import os
import time
import uuid
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from igos_pl.data.records import BatchResult
from igos_pl.data.run_files import CLAIM, DAMAGED, DEATHS, EXPECTED, FIGURES, MERGED, OVERLAYS, SEGMENTS
from igos_pl.data.wording import counted, has_or_have, is_or_are
from igos_pl.errors import IgosError, RunError
from igos_pl.settings import Attributes
from igos_pl.store.files import cannot_write, open_result, publishing
from igos_pl.store.index import Published, merged_head
from igos_pl.store.schema import (
    DamagedFileError,
    configuration_of,
    decoded,
    differing_keys,
    text_array,
)
from igos_pl.store.seals import check_seal, read_head
from igos_pl.store.segments import writable_segment

# The digest of the ids of a data set in a configuration.
_IDS = "data.ids"

# Digests of the first and the last image, and of the first and the last imported map.
_ITEMS = {"data.items": "image", "saliency.items": "saliency map"}

# The digest of a search's settings in runs of older versions; today's runs have each setting as search.NAME.
_SEARCH = "search"

# What to do with a folder whose results are not wanted any more.
START_OVER = "To start over, choose another output folder (--output), or delete the old one"

# A message lists at most so many settings that differ.
_SHOWN = 8

# Says in words what explains many of the settings in which two configurations differ, and names them.
InWords = Callable[[Attributes, Attributes], tuple[str, set[str]]]

_STALE_SECONDS = 24 * 3600
_BLOCK_BYTES = 1 << 22  # how much of the list of images is read at once
_CLAIM_SECONDS, _POLL_SECONDS = 2.0, 0.1

# The errors of file systems without hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


class RunFolder:
    """The output folder of a run.

    ``segments/*.h5`` hold the results as they were published, ``masks.h5`` is their merged copy. An image is
    done when its row in a segment's table ``images`` is published, together with all of its explanations.

    Args:
        path: the folder; created by `prepare`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._claimed_here = False

    @property
    def segments_path(self) -> Path:
        """The folder of the segments."""
        return self.path / SEGMENTS

    @property
    def merged(self) -> Path:
        """The merged file."""
        return self.path / MERGED

    @property
    def expected_path(self) -> Path:
        """The list of images that the run is to explain."""
        return self.path / EXPECTED

    @property
    def claim_path(self) -> Path:
        """The configuration that the folder is reserved for."""
        return self.path / CLAIM

    def segments(self) -> list[Path]:
        """The published segments, in the order of their names (which begin with the time)."""
        return sorted(self.segments_path.glob("[!.]*.h5"))

    def files(self) -> list[Path]:
        """All result files: the published segments, and the merged file if there is one."""
        return [*self.segments(), *([self.merged] if self.merged.exists() else [])]

    def prepare(self) -> None:
        """Create the folder and check that it can be written.

        Raises:
            IgosError: if it cannot be written.
        """
        probe = self.segments_path / f".probe.{uuid.uuid4().hex}.tmp"
        try:
            self.segments_path.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
            self._remove_stale_files()
        except OSError as error:
            raise IgosError(
                f"Cannot write to the output folder {self.path}: {error.strerror or error}."
                " Choose another output folder (--output), or free space, or fix the permissions"
            ) from error

    def _remove_stale_files(self) -> None:
        """Remove half-written files of killed processes. Files of the last day stay: they may be in use."""
        for folder in ("", SEGMENTS, OVERLAYS, DEATHS):
            for path in (self.path / folder).glob(".*.tmp"):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def published(self, without: Container[Path] = ()) -> Published:
        """The images that are published, from the heads of the segments.

        Args:
            without: segments that are left out.

        Raises:
            IgosError: if the head of a segment is damaged, or of another schema version.
        """
        return Published([path for path in self.segments() if path not in without])

    def done(self) -> set[str]:
        """The ids of all images that are published."""
        return set(self.statuses())

    def statuses(self, without: Container[Path] = ()) -> dict[str, str]:
        """The statuses of all images that are published, by their ids.

        Args:
            without: segments that are left out.
        """
        return self.published(without).statuses_by_id()

    def damaged(self) -> list[Path]:
        """The damaged result files."""
        files = self.files()
        # Some threads digest, others wait for the file system.
        with ThreadPoolExecutor(max(8, os.cpu_count() or 1)) as pool:
            return [path for path, whole in zip(files, pool.map(_is_whole, files), strict=True) if not whole]

    def set_aside(self, damaged: Sequence[Path]) -> list[Path]:
        """Move damaged files into the folder ``damaged``. Their images count as not explained.

        Returns:
            Where the files are now.
        """
        moved = []
        for path in damaged:
            aside = self.path / DAMAGED / path.name
            aside.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):  # another run has moved it
                path.replace(aside)
                moved.append(aside)
        return moved

    def expect(self, ids: Sequence[str]) -> None:
        """Write the list of all images that the run is to explain."""
        with publishing(self.expected_path) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")

    def expected(self) -> list[str]:
        """The ids of the images that earlier runs were to explain; none before the first run.

        A run that ended before its first result does not count: its list does not oblige later runs.
        """
        if not self.expected_path.is_file() or not (self.claim_path.exists() or self.files()):
            return []
        return self.expected_path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]

    def missing(self, published: Published | None = None) -> list[str]:
        """The ids of the images that the run is to explain and has not published yet.

        Args:
            published: what is published, if the caller has read it already.

        Raises:
            IgosError: if the folder is not the output folder of a run.
        """
        if not self.expected_path.is_file():
            raise IgosError(
                f"{self.path} is not the output folder of a run: it has no {self.expected_path.name}"
            )
        if published is None:
            published = self.published()
        missing: list[str] = []
        with self.expected_path.open("rb") as file:
            while lines := file.readlines(_BLOCK_BYTES):
                names = text_array([line.removesuffix(b"\n") for line in lines])
                try:
                    missing += decoded(names[~published.contains(names)]).tolist()
                except UnicodeDecodeError as error:
                    raise DamagedFileError(
                        f"{self.expected_path} is damaged (not UTF-8): igos-pl predict with the same settings"
                        " writes it again"
                    ) from error
        return missing

    def is_merged(self) -> bool:
        """Whether the merged file was made from the segments that the folder holds."""
        return self.merged.exists() and merged_head(self.segments()).items() <= read_head(self.merged).items()

    def check_configuration(
        self,
        configuration: Attributes,
        without: Container[Path] = (),
        names: Sequence[str] = (),
        in_words: InWords | None = None,
    ) -> None:
        """Raise if the folder belongs to a run of another configuration.

        Args:
            configuration: the run's configuration.
            without: damaged files, which are not read.
            names: the ids of the data set's images, to say how they differ.
            in_words: what the message begins with, and the keys that it need not name then.

        Raises:
            IgosError: if they differ. The message names the keys.
        """
        claimed = self._claimed()
        if claimed is not None:
            self._compare(claimed, configuration, names, in_words)
        files = [path for path in self.files() if path not in without]
        for path in {*files[:1], *files[-1:]}:
            with open_result(path) as file:
                self._compare(configuration_of(dict(file.attrs)), configuration, names, in_words)

    def claim(self, configuration: Attributes) -> None:
        """Reserve the folder for runs of one configuration.

        If several runs start at the same time, on any machines, the first to create the file decides the
        configuration. The file appears complete or not at all.

        Raises:
            IgosError: if a run of another configuration has claimed it. The message names the differing keys.
        """
        claimed = self._claimed()
        if claimed is not None:
            self._compare(claimed, configuration)
            return
        temporary = self.claim_path.with_name(f".{self.claim_path.name}.{uuid.uuid4().hex}.tmp")
        created = False
        try:
            temporary.write_text(json.dumps(dict(configuration), indent=1, sort_keys=True), encoding="utf-8")
            _appear(temporary, self.claim_path)
            created = self._claimed_here = True
            self.check_configuration(configuration)  # others may have published in the meantime
        except FileExistsError:
            self.check_configuration(configuration)
        except OSError as error:
            raise cannot_write(self.claim_path, error) from error
        except IgosError:
            if created:
                self.claim_path.unlink(missing_ok=True)
            raise
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def release(self) -> None:
        """Withdraw this process's claim if nothing was published, so that another configuration may be used.

        Another run of this configuration that is still going on claims the folder again when it publishes.
        """
        if self._claimed_here and not self.files():
            with suppress(OSError):
                self.claim_path.unlink(missing_ok=True)

    def _claimed(self) -> Attributes | None:
        waited = 0.0
        while True:
            try:
                return dict(json.loads(self.claim_path.read_bytes()))
            except (FileNotFoundError, NotADirectoryError):
                return None
            except (OSError, ValueError) as error:
                # Without hard links, the run that creates the file may be writing it now.
                if isinstance(error, OSError) or waited >= _CLAIM_SECONDS:
                    raise IgosError(
                        f"Cannot read {self.claim_path}, the configuration of the runs in this folder"
                        f" ({error}): delete it if no run is using the folder"
                    ) from error
            time.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _compare(
        self,
        stored: Attributes,
        configuration: Attributes,
        names: Sequence[str] = (),
        in_words: InWords | None = None,
    ) -> None:
        keys = differing_keys(stored, configuration)
        if _SEARCH in stored:
            keys = [key for key in keys if not key.startswith(f"{_SEARCH}.")]
        if not keys:
            return
        told, explained = in_words(stored, configuration) if in_words else ("", set())
        keys = sorted((key for key in keys if key not in explained), key=lambda key: key.count("."))
        differing = [told] if told else []
        differing += [
            self._ids_in_words(stored, names)
            if key == _IDS and names
            else f"the first or the last {_ITEMS[key]} has another content"
            if key in _ITEMS and key in stored
            else "the settings of the search: an older version made that run and recorded only their digest"
            if key == _SEARCH
            else f"{key}: there {stored.get(key)!r}, now {configuration.get(key)!r}"
            for key in keys[:_SHOWN]
        ]
        if len(keys) > _SHOWN:
            differing.append(f"and {len(keys) - _SHOWN} more")
        advice = f"{START_OVER}. To go on with that run, use its settings"
        if self.path.parent.name == FIGURES:
            advice = f"To judge the run anew, delete {self.path}"
        elif not self.files():
            advice = (
                f"Choose another output folder (--output). If that run has died, delete {self.claim_path}"
            )
        raise IgosError(
            f"{self.path} holds results of another configuration ({'; '.join(differing)}). {advice}"
        )

    def _ids_in_words(self, stored: Attributes, names: Sequence[str]) -> str:
        """How the ids of the data set's images differ from those that the folder's runs were to explain."""
        earlier = self.expected()
        pairs = enumerate(zip(earlier, names, strict=False))
        place = next((place for place, (old, new) in pairs if old != new), min(len(earlier), len(names)))
        if place == len(earlier) < int(stored.get("data.length", 0)):
            return f"the ids of images differ, somewhere from number {place:,} on"  # there was a limit
        old, new = (repr(ids[place]) if place < len(ids) else "none" for ids in (earlier, names))
        return f"the ids of images differ, the first at number {place}: there {old}, now {new}"

    def publish(self, results: Sequence[BatchResult], attributes: Attributes, rank: int = 0) -> Path:
        """Publish finished images as one new segment.

        The file appears under its name only when all of it is on the disk.

        Args:
            results: the results of at least one image.
            attributes: the run's attributes; time and schema version are added.
            rank: the rank of this process, which is a part of the file's name.

        Raises:
            IgosError: if the disk is full, the folder cannot be written, or a run of another configuration
                has claimed it in the meantime. Nothing is published then.
        """
        configuration, claimed = configuration_of(attributes), self._claimed()
        if claimed is None:  # a run that ended without a result withdrew it
            self.claim(configuration)
        else:
            self._compare(claimed, configuration)
        content = writable_segment(results, attributes)
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S")
        path = self.segments_path / f"{stamp}-rank{rank:04d}-{uuid.uuid4().hex}.h5"
        try:
            with publishing(path) as temporary:
                temporary.write_bytes(content)
        except RunError as error:
            kept = "All that was published before is safe" if self.files() else "Nothing is published yet"
            raise type(error)(f"{error}. {kept}") from error
        return path


def unfinished(path: Path, command: str, published: Published | None = None) -> str:
    """How many images of a run have no result yet, in words; empty if there are none, or none are known.

    The results in masks.h5 may be readable although a file that this needs is damaged. Then this says so.

    Args:
        path: a run's folder. For a result file, the number is unknown.
        command: what the user ran on it, as in ``igos-pl report``.
        published: what is published, if the caller has read it already.
    """
    run = RunFolder(path)
    only_merged = run.merged.exists() and not run.segments()  # which is taken for whole
    if not run.expected_path.is_file() or only_merged:
        return ""
    try:
        published = run.published() if published is None else published
        missing = len(run.missing(published))
    except IgosError as error:
        told = f"It is not known whether this run is finished: {error}."
        if run.is_merged():
            told += " The results shown here come from masks.h5, which has the results of all segments."
        return told
    if not missing:
        return ""
    whole, have, are = counted(len(published) + missing, "image"), has_or_have(missing), is_or_are(missing)
    return (
        f"This run is not finished: {missing:,} of {whole} {have} no result yet, and {are} left out here. To"
        f" continue, repeat the command that started the run, and then {command}."
    )


def _is_whole(path: Path) -> bool:
    """Whether a file is not a link, and every byte of it is as it was written."""
    if path.is_symlink():
        return False
    try:
        check_seal(path)
    except DamagedFileError:
        return False
    except IgosError:
        if path.exists():  # otherwise another run has moved it
            raise
    return True


def _appear(temporary: Path, path: Path) -> None:
    """Give a complete file its name, unless there is a file of this name already.

    Raises:
        FileExistsError: if there is a file of this name.
    """
    try:
        os.link(temporary, path)  # atomic on NFS, too
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("xb") as file:
            try:
                file.write(temporary.read_bytes())
                file.flush()
            except OSError:
                path.unlink()
                raise
