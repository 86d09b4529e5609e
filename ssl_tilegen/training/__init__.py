"""Training: one loop, one file per stage, its data and its objectives."""
