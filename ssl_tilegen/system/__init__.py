"""The machine underneath: devices, signals, processes, locks, files that appear whole. No torch at import."""
