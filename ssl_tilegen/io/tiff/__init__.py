"""TIFF on the level of directories and tiles."""
