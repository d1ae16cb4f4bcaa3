"""What is explained: images, annotations, targets, and the geometry between them. Plain data."""
