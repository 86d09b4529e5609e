"""One file per kind of image that can be written; `io.pyramid.open_writer` chooses."""
