"""Explanations while a network is trained by a LightningModule of its own."""

from igos_pl.training.callback import ExplainCallback

__all__ = ["ExplainCallback"]
