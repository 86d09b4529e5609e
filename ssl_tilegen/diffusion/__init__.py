"""Sampling: a function of a function, lifted four times.

``parameterization`` makes any network's output a clean estimate; ``guidance`` bends it; ``tiled_denoise`` lifts it from
windows to the whole canvas (by exact ``tiles``, or by ``windows``); the ``sampler`` walks it down a ``schedule`` with
a rule in ``steppers`` that sees single elements. ``noise``, ``field`` and ``canvas`` are placed by absolute windows in
latents, so batch, order, tiling, process and resumption (``sampler_state``) do not show in the image. ``decoding``
turns latents into bands of pixels.
"""
