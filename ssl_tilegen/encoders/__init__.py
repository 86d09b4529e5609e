"""Tiles to vectors: the encoder contract, timm models by name, the encoder of a bundle.

Modules: `base` (the contract), `module_encoder` (any torch network as an encoder), `registry` (well-known encoders and
their settings), `timm_encoder` and `bundle_encoder` (the two ways to get one).
"""
