"""A small service with two models, as one would put Calidrift into one's own."""
