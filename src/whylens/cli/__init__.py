"""The command line: arguments made from signatures, errors in one sentence, exit codes that mean something.

0: all went well. 2: the request cannot be done as asked. 3: finished, but some images failed. 1: a defect of whylens.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from ..errors import WhylensError, kind_and_line
from . import about as about
from . import act as act
from . import compare as compare
from . import explain as explain
from . import gap as gap
from . import graph as graph
from . import groups as groups
from . import runs as runs
from .app import app as app


def main() -> None:
    """The console command. Every error is one sentence; --debug shows where it came from before saying it."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        code, sentence = _judged(error)
        if "--debug" in sys.argv:
            traceback.print_exc()
        typer.echo(f"whylens: {sentence}", err=True)
        sys.exit(code)


def _judged(error: Any) -> tuple[int, str]:
    """The exit code and the sentence for an error."""
    if isinstance(error, WhylensError):
        return 2, str(error)
    if hasattr(error, "format_message"):  # typer's own errors, in whichever of its modules they live
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "whylens"
        return 2, f"{error.format_message().rstrip('.')}. Help: {command} --help."
    said = kind_and_line(error)
    return 1, (
        f"this is a defect, not your doing: {said}\nRun again with 'whylens --debug ...' and report what it prints."
    )
