"""Losses and the networks that exist only for them."""
