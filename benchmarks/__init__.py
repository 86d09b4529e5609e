"""Measurements: each prints ratios and figures; `python -m benchmarks.NAME --help`."""
