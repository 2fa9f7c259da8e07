"""The rows of a job as Parquet, a group of rows at a time. Needs pyarrow: `lcdoc[parquet]`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, BinaryIO

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Task
from lcdoc.jobs.results import SCHEMA, Result

_GROUP_ROWS = 2_000


def write_parquet(results: Iterable[Result], stream: BinaryIO, _tasks: Sequence[Task]) -> int:
    """Typed columns as in the JSON form; `value` is JSON text, since each task has its own form. Raises JobError
    without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise JobError("Parquet takes pyarrow", "pip install 'lcdoc[parquet]', or take --format jsonl") from error
    schema = _schema(pa)
    remaining, count = iter(results), 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while rows := [_row(result) for result in islice(remaining, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _row(result: Result) -> dict[str, Any]:
    plain = result.model_dump()
    plain["value"] = None if result.value is None else json.dumps(result.value, ensure_ascii=False)
    return plain


def _schema(pa: Any) -> Any:
    text, whole, number = pa.string(), pa.int64(), pa.float64()
    texts, wholes = pa.list_(text), pa.list_(whole)
    span = pa.struct({"start": whole, "end": whole})
    citation = pa.struct(
        {
            "document_id": text,
            "quote": text,
            "span": span,
            "parts": pa.list_(span),
            "pages": wholes,
            "labels": texts,
            "headings": texts,
            "status": text,
            "score": number,
            "occurrences": whole,
        }
    )
    claim = {"text": text, "confidence": number, "citations": pa.list_(citation), "unquoted_figures": texts}
    counts = ("calls", "failed_calls", "stored_calls", "tokens_in", "tokens_cached", "tokens_out")
    usage = {**dict.fromkeys(counts, whole), "estimated": pa.bool_(), "cost_usd": number, "seconds": number}
    columns = {
        "job": text,
        "document": pa.struct({"number": whole, "path": text, "name": text, "id": text, "pages": whole}),
        "task": pa.struct({"number": whole, "id": text, "kind": text, "question": text}),
        "found": pa.bool_(),
        "partial": pa.bool_(),
        "answer": text,
        "value": text,
        "claims": pa.list_(pa.struct(claim)),
        "confidence": number,
        "workflow": text,
        "model": text,
        "warnings": texts,
        "usage": pa.struct(usage),
        "seconds": number,
        "error": text,
        "run_id": text,
        "worker": text,
        "finished_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(columns, metadata={"schema": SCHEMA})
