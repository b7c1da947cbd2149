"""Tables of how well architectures learn from few images, and how well scores foretell it."""
