"""Explanations in the formats of other programs."""

from igos_pl.export.formats import FORMATS, Options, export, writes_folder

__all__ = ["FORMATS", "Options", "export", "writes_folder"]
