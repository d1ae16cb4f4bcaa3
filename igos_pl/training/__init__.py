"""Explain the user's own LightningModule while it is trained."""

from igos_pl.training.callback import ExplainCallback

__all__ = ["ExplainCallback"]
