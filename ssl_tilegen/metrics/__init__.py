"""Metrics: one small file each; they take arrays and know no encoder and no file."""
