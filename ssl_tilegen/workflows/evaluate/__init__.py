"""`evaluate`: how good are synthetic images, and how useful? `story` tells it; the other files are its parts."""

from ssl_tilegen.workflows.evaluate.story import evaluate

__all__ = ["evaluate"]
