"""Training data: images read window by window, batches made ahead, and caches of results that are computed once."""
