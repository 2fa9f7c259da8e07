"""The process of a worker that a runner started: `python -m lcdoc.jobs.process JOB --library PATH --worker ID`.

It says on standard output, a JSON object a line, that it lives and what the user should know; `runner.py` is the other
end. Standard input is the runner's life line: when it closes, the runner is gone, and the worker ends as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TextIO


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until nothing is left. Returns the exit status: see `Ending`."""
    parser = argparse.ArgumentParser(prog="lcdoc.jobs.process")
    parser.add_argument("job")
    parser.add_argument("--library", required=True)
    parser.add_argument("--worker", default="")
    parser.add_argument("--share", type=int, default=1)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    sink = _own_output()
    _end_with_runner()
    # Later than the life line: what it imports takes a second.
    from lcdoc.jobs.worker import work

    telling = threading.Lock()

    def tell(**message: object) -> None:
        # The runner may have gone; the life line says so.
        with telling, contextlib.suppress(OSError):
            sink.write(json.dumps(message) + "\n")
            sink.flush()

    tell(alive=True)
    return work(
        given.library,
        given.job,
        worker_id=given.worker,
        share=given.share,
        recycle=True,
        on_line=lambda line: tell(line=line),
        alive=lambda: tell(alive=True),
    )


def _own_output() -> TextIO:
    """Standard output for messages alone: whatever else prints goes to standard error."""
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return sink


def _end_with_runner() -> None:
    def wait() -> None:
        # Not through sys.stdin, whose lock the interpreter wants when it ends.
        while os.read(0, 4096):
            pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="lcdoc-life-line", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
