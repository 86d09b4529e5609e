"""Tiles to vectors: the encoder contract, timm models by name, the encoder of a bundle.

Modules: `base` (the contract), `network` (any torch network as an encoder), `registry` (what each well-known encoder
needs), `timm_encoder` and `bundle_encoder` (the two ways to get one).
"""
