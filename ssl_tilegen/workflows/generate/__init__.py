"""`generate`: a grid of embeddings -> a large image. `run` is the command; the other files are its parts."""
