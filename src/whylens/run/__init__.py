"""Run: a dataset explained once, kept on disk, readable by anything; see `audit` and `read`."""
