"""Worker: a process that works off shards it is told of; ``python -m whylens.run.worker RUN PART WORKERS``.

It reads one shard number per line and answers in lines of JSON. When whoever started it is gone, it ends at once:
what is not committed by then is made again by the next run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

from ..errors import WhylensError


def main(arguments: list[str]) -> None:
    """Serve until the input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the net's code prints must not look like an answer
    shards: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(shards,), daemon=True).start()
    folder, part, workers = Path(arguments[0]), arguments[1], int(arguments[2])
    try:
        from .local import ready
        from .plan import Plan

        worker = ready(folder, Plan.read(folder), part, workers=workers)
        _say(out, ready=True)
        while True:
            shard = shards.get()
            won = worker.run(shard, lambda count: _say(out, done=count))
            _say(out, shard=shard, won=won)
    except Exception as error:  # told to whoever started this, who raises it
        known = isinstance(error, WhylensError | OSError)
        said = str(error) if isinstance(error, WhylensError) else f"{type(error).__name__}: {error}"
        _say(out, error=said, code=getattr(error, "errno", None), known=known, traceback=traceback.format_exc())
        sys.exit(2)


def _listen(shards: queue.SimpleQueue[int]) -> None:
    for line in sys.stdin:
        shards.put(int(line))
    os._exit(0)


def _say(out: TextIO, **said: Any) -> None:
    out.write(json.dumps(said) + "\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
