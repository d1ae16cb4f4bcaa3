"""Judges saliency: that of a run, and that of other methods, which is imported first."""
