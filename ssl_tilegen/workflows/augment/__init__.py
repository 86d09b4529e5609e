"""`augment`: labelled pictures -> more of them. `story` tells it; the other files are its parts."""

from ssl_tilegen.workflows.augment.story import augment

__all__ = ["augment"]
