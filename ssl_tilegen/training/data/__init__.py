"""Training data: images read window by window, batches made ahead, and caches of what is computed once."""
