"""Cuts a long stream of work into pieces that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from igos_pl.errors import IgosError

# The CPU's allocator has no exception type of its own; these are its words.
_CPU_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class MicroBatches:
    """Runs a stream in equal pieces of at most ``size`` items; halves the size when memory runs out.

    Pieces are equal, so that no small remainder leaves a device idle. The smaller size is kept for everything
    that follows, so that memory runs out once and not again and again.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise IgosError(f"micro_batch_size is {size}, but must be at least 1")
        self.size = size

    def run(self, items: int, work: Callable[[int, int], None]) -> None:
        """Call ``work(start, stop)`` until all items are done.

        Args:
            items: how many there are.
            work: does the items from start to stop. It is called again with fewer items when memory runs out,
                so it must write its results last.

        Raises:
            IgosError: if memory runs out with a single item.
        """
        start = 0
        while start < items:
            pieces = math.ceil((items - start) / self.size)
            stop = start + math.ceil((items - start) / pieces)
            try:
                work(start, stop)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(stop - start, error)
            else:
                start = stop

    def _shrink(self, tried: int, error: BaseException) -> None:
        if tried == 1:
            raise IgosError(
                "Out of memory with a single perturbed image: use a smaller network input, or a device with"
                f" more memory ({(str(error) or type(error).__name__).splitlines()[0]})"
            ) from error
        self.size = math.ceil(tried / 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_OUT_OF_MEMORY)


def is_dead_loader(error: BaseException) -> bool:
    """Whether an exception says that a data-loading process died. Its signal handler raises it anywhere."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def is_machine_error(error: BaseException) -> bool:
    """Whether an exception is about the machine, and not about the image that is being explained.

    That is: memory ran out, the accelerator failed (all later calls fail as well then), or a data-loading
    process died.
    """
    kind = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    accelerator = (kind is not None and isinstance(error, kind)) or "CUDA error" in str(error)
    return accelerator or is_out_of_memory(error) or is_dead_loader(error)
