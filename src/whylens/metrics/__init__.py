"""Metrics, one file each: file = function = command-line word = the name in the literature."""
