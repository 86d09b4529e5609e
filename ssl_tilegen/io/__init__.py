"""Pixels to and from files; never torch.

Reading: ``raster`` (the contract, ``open_raster``), ``view`` (a raster at a resolution), one file per kind of reader.
Writing: ``pyramid`` (``open_writer``, ``ImageSpec``), one file per format. ``tissue`` tells tissue from background.
"""
