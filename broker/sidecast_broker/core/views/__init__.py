"""One module per client format: how a record becomes the bytes of a frame."""
