"""``python -m whylens``: the command line."""

from .cli import main

main()
