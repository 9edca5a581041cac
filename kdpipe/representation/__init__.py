"""Representations: a layer as vectors, and vectors as two-dimensional maps."""
