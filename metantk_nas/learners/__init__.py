"""Few-shot learners: from an architecture and episodes to a predictor."""
