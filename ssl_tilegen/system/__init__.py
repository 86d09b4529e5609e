"""What the program shares with the machine: files, locks, memory, signals, errors. No torch at import."""
