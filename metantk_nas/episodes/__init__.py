"""Images by class, and the few-shot episodes drawn from them."""
