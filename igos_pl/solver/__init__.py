"""Masks are optimised here: batches of tensors in, masks out, without Lightning."""
