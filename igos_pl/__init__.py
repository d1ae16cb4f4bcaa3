"""Optimised saliency masks (I-GOS, iGOS+, iGOS++) for whole data sets, on PyTorch Lightning."""

__version__ = "0.1.0"
