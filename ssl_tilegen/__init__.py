"""Synthesise whole-slide pathology images and aerial images from grids of self-supervised embeddings."""

__version__ = "0.1.0"
