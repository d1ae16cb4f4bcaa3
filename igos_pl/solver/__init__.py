"""Optimises masks: takes batches of tensors and returns masks; independent of Lightning."""
