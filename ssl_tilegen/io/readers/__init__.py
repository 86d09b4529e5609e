"""One file per kind of image that can be read; `io.raster.open_raster` chooses."""
