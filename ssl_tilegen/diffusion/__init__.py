"""Sampling: a function of a function, lifted four times.

``prediction`` makes any network's answer a clean estimate; ``guidance`` bends it; a ``sweep`` lifts it from windows to
the whole canvas (by exact ``tiles``, or by ``lattices`` of windows); the ``sampler`` walks it down a ``ladder`` with an
``updates`` rule that sees single elements. ``noise``, ``field`` and ``canvas`` are placed by absolute windows in
latents, so batch, order, tiling, process and resumption (``checkpoint``) do not show in the picture. ``decoding`` turns
latents into bands of pixels.
"""
