"""`evaluate`: how good and how useful synthetic images are. `run` is the command; the other files are its parts."""
