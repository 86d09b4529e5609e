"""`augment`: labelled images -> more of them. `run` is the command; the other files are its parts."""
