"""Priors of grids: labels, texts, vectors and maps become conditions, and conditions become grids of embeddings."""
