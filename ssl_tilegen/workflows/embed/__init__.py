"""`embed`: images -> grids of embeddings. `run` is the command; the other files are its parts."""
