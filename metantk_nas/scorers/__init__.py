"""Scores of untrained architectures."""
