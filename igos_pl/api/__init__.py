"""Explain and judge images in memory with one call."""

from igos_pl.api.attribution import MaskAttribution, explain_func
from igos_pl.api.call import explain
from igos_pl.api.judging import evaluate, import_saliency
from igos_pl.api.result import Explanations

__all__ = ["Explanations", "MaskAttribution", "evaluate", "explain", "explain_func", "import_saliency"]
