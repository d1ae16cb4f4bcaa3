"""Publishes finished images while the next ones are explained."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from igos_pl.data.records import BatchResult
from igos_pl.run.run import Run
from igos_pl.settings import Attributes


class Publisher:
    """Collects a rank's finished images and publishes them as segments, in a thread.

    The thread builds and writes one segment at a time. Its errors are raised by the next call.

    Args:
        run: its folder gets the segments.
        attributes: the attributes of the segments.
        images: publish when this many images are finished.
        seconds: publish when this much time has passed, even with fewer images.
    """

    def __init__(self, run: Run, attributes: Attributes, images: int, seconds: float) -> None:
        self.run = run
        self.attributes = attributes
        self.images = images
        self.seconds = seconds
        self._finished: list[BatchResult] = []
        self._failed: list[BatchResult] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._publishing: Future[Path] | None = None
        self._published_at = time.monotonic()

    def add(self, result: BatchResult) -> None:
        """Keep a batch's result, and publish if there are enough images or enough time has passed.

        Raises:
            IgosError: if results could not be published.
        """
        if result.worked():
            self._finished += [*self._failed, result]
            self._failed = []
        else:  # the network may be broken: failures are final only when it explains another image
            self._finished.append(result.without_failed())
            self._failed.append(result.failed())
        if self._publishing is not None and self._publishing.done():
            self._wait()
        waited = time.monotonic() - self._published_at
        if sum(len(each.images) for each in self._finished) >= self.images or waited >= self.seconds:
            self._publish()

    def finish(self) -> None:
        """Publish the rest; returns when it is on the disk.

        Raises:
            IgosError: if results could not be published.
        """
        self._finished += self._failed
        self._failed = []
        self._publish()
        self._wait()

    def rescue(self) -> None:
        """Publish finished images after an exception elsewhere.

        Errors here become warnings, so that they do not hide that exception. The last images at which the
        network failed are not published: the next run tries them again.
        """
        for step in (self._wait, self._publish, self._wait):
            with _errors_as_warnings():
                step()
        self.close()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _publish(self) -> None:
        """Give the finished images to the thread, after it has published the ones before."""
        self._wait()
        if any(result.images for result in self._finished):
            self.run.coordinator.check_connected()
            # Emptied first: if this write fails, `rescue` must not try the same images again.
            finished, self._finished = self._finished, []
            rank = self.run.coordinator.rank
            write = partial(self.run.folder.publish, finished, self.attributes, rank)
            self._publishing = self._thread.submit(self.run.with_room_for, write)
        self._published_at = time.monotonic()

    def _wait(self) -> None:
        """Wait for the thread. If publishing failed, raise its exception (only once)."""
        if self._publishing is not None:
            error = self._publishing.exception()  # if an interrupt ends this, `rescue` waits again
            self._publishing = None
            if error is not None:
                raise error


@contextmanager
def _errors_as_warnings() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        warnings.warn(f"Finished images were not published: {error}", stacklevel=1)
