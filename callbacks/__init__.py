"""Callbacks that write, show and stop a run; import this as ``igos_pl.callbacks``."""

from igos_pl.callbacks.dry_run import DryRun
from igos_pl.callbacks.lifecycle import RunCallback
from igos_pl.callbacks.overlays import OverlayWriter
from igos_pl.callbacks.progress import MaskProgressBar
from igos_pl.callbacks.writer import MaskWriter

__all__ = ["DryRun", "MaskProgressBar", "MaskWriter", "OverlayWriter", "RunCallback"]
