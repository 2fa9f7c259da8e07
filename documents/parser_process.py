"""The process that parses. It reads one request, answers it, and ends.

Parsers of untrusted files are native code that may crash, hang or eat memory. Here that costs a process, not the
command. The request is a line of JSON followed by the file's bytes; the answer is lines of JSON: progress, then one
result or one error. Run as `python -m lcdoc.documents.parser_process` it serves standard input and output, and
`isolation.py` is the other end; processes forked by `pool_template.py` serve a socket.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, BinaryIO

from lcdoc.documents import errors
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.limits import Limits

# A file of such a name that turns out to be text is most likely broken.
_NEVER_TEXT = frozenset({".pdf", ".epub", ".docx", ".doc", ".odt"})

Task = Callable[[Job, dict[str, Any]], dict[str, Any]]


def _read(job: Job, options: dict[str, Any]) -> dict[str, Any]:
    from lcdoc.documents.readers import reader_for, reader_version

    module = reader_for(job.media_type)
    builder = DocumentBuilder(job)
    suffix = PurePath(job.name).suffix.lower()
    if suffix in _NEVER_TEXT and job.media_type.startswith("text/"):
        builder.warn(f"is named {suffix}, but its content is {job.media_type}, and was read as that")
    module.read(job, builder)
    document = builder.build(
        reader=module.READER, reader_version=reader_version(job.media_type), digest=options["digest"]
    )
    return {"layout": document.layout(), "text": document.text}


def _boxes(job: Job, options: dict[str, Any]) -> dict[str, Any]:
    from lcdoc.documents.pdf_boxes import find_boxes

    return {"boxes": find_boxes(job, options["pages"])}


def _render(job: Job, options: dict[str, Any]) -> dict[str, Any]:
    from lcdoc.documents.pdf_image import render_png

    return {"png": base64.b64encode(render_png(job, **options)).decode()}


_TASKS: dict[str, Task] = {"read": _read, "boxes": _boxes, "render": _render}


def _bound_resources(limits: Limits) -> None:
    """Let the operating system enforce memory and, as a backstop, processor time; not available on Windows."""
    try:
        import resource
    except ImportError:
        return
    seconds = int(limits.max_seconds) + 5
    bounds = [
        (resource.RLIMIT_AS, limits.max_memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ]
    for kind, value in bounds:
        # macOS refuses some of these; the parent's clock bounds the run all the same.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _send(stream: BinaryIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    stream.flush()


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Serve one request. Errors of the document travel as values; anything else is a crash and shows in the status."""
    request = json.loads(source.readline())
    limits = Limits(**request["limits"])
    _bound_resources(limits)
    job = Job(
        name=request["name"],
        data=source.read(request["size"]),
        media_type=request["media_type"],
        password=request["password"],
        limits=limits,
        progress=lambda done, total: _send(sink, {"progress": [done, total]}),
    )
    try:
        result = _TASKS[request["task"]](job, request["options"])
    except errors.DocumentError as error:
        _send(sink, {"error": [type(error).__name__, error.problem, error.remedy]})
    except MemoryError:
        _send(sink, {"error": ["LimitError", "not enough memory to parse it", "raise Limits.max_memory_bytes"]})
    except RecursionError:
        _send(sink, {"error": ["CorruptFileError", "it is nested too deeply", "check that it is the right file"]})
    else:
        _send(sink, {"result": result})


def main() -> int:
    """Serve standard input and output."""
    # Nothing a library prints may end up among the answers, whichever way it prints.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    # The process ends with its one document: looking for garbage would only cost time.
    gc.disable()
    serve(sys.stdin.buffer, sink)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
