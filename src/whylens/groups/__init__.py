"""Groups: from the maps of a run to named groups of evidence."""
