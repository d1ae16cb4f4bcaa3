"""Generated demo pictures and small trained detectors."""
