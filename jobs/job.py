"""What a batch job is: documents, what is asked of each of them, by which model, and what it may cost.

A job is a value: the same text in a TOML file, in the library's job table, and here. Two jobs that would give the same
rows have the same `fingerprint`, which is how the same command goes on with its job rather than begin a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.model import Profile
from lcdoc.documents import Limits
from lcdoc.jobs.errors import misfit
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER
from lcdoc.workflows.errors import UnknownWorkflowError
from lcdoc.workflows.registry import AUTO, names
from lcdoc.workflows.summary_request import DEFAULT_WORDS, LEAST_WORDS, MOST_WORDS, SummaryRequest

MAX_TASKS = 10_000
"""For each document; a file of questions with more is a mistake."""
_ID_CHARACTERS = 40
_SAME_WHATEVER = frozenset({"name", "caps", "per_document", "attempts"})
"""Settings that may change while a job is under way: its rows are of the same questions."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _words_only(text: str) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not text:
        raise PydanticCustomError("empty", "is empty")
    return text


def _workflow(name: str) -> str:
    known = (*names(), AUTO)
    if (plain := name.strip().lower().replace("-", "_")) not in known:
        raise PydanticCustomError("workflow", "{said}", {"said": str(UnknownWorkflowError(name, known))})
    return plain


def _canonical(schema: object) -> object:
    from lcdoc.workflows.extract_request import ExtractRequest
    from lcdoc.workflows.extract_schema import SchemaError

    try:
        return ExtractRequest.of(schema).schema.to_json()
    except SchemaError as error:
        raise PydanticCustomError("schema", "{said}", {"said": str(error)}) from None


_Text = Annotated[str, BeforeValidator(lambda given: _words_only(given) if isinstance(given, str) else given)]
_Id = Annotated[str, Field(max_length=200, pattern=r"^(\S(.*\S)?)?$")]


class AskTask(_Value):
    """A question, asked of each document by itself."""

    kind: Literal["ask"] = "ask"
    id: _Id = ""
    question: _Text
    workflow: Annotated[str, AfterValidator(_workflow)] = AUTO
    """A name of `lcdoc workflows list`, or `auto`."""

    @property
    def request(self) -> str:
        """What is put to the workflow."""
        return self.question


class SummarizeTask(_Value):
    """A summary of each document."""

    kind: Literal["summarize"] = "summarize"
    id: _Id = ""
    words: int = Field(default=DEFAULT_WORDS, ge=LEAST_WORDS, le=MOST_WORDS)
    about: str = ""
    """What it is to be about; empty: everything."""

    @property
    def workflow(self) -> str:
        return "summarize"

    @property
    def question(self) -> str:
        """The request in words."""
        return SummaryRequest(" ".join(self.about.split()), self.words).question

    @property
    def request(self) -> str:
        """What is put to the workflow."""
        return self.question


class ExtractTask(_Value):
    """The fields of a JSON Schema, filled from each document."""

    kind: Literal["extract"] = "extract"
    id: _Id = ""
    json_schema: Annotated[dict[str, Any], BeforeValidator(_canonical)] = Field(alias="schema")
    """In the form that is the same for equal schemas; given in any form that `ExtractRequest.of` takes."""

    @property
    def workflow(self) -> str:
        return "extract"

    @property
    def request(self) -> str:
        """What is put to the workflow."""
        from lcdoc.workflows.extract_request import ExtractRequest

        return ExtractRequest.of(self.json_schema).question

    @property
    def question(self) -> str:
        """The schema's title, where it has one."""
        title = self.json_schema.get("title")
        return title if isinstance(title, str) else ""


def _kind(given: Any) -> str:
    """A task without a kind is told by what it has."""
    if not isinstance(given, Mapping):
        return getattr(given, "kind", "")
    return str(given.get("kind") or ("extract" if "schema" in given or "json_schema" in given else "ask"))


Task = Annotated[
    Annotated[AskTask, Tag("ask")]
    | Annotated[SummarizeTask, Tag("summarize")]
    | Annotated[ExtractTask, Tag("extract")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="has no known kind: ask, summarize or extract",
    ),
]


class Caps(_Value):
    """What may be spent at most; None: no cap. Seconds are of answering."""

    usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    tokens: int | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @property
    def budget(self) -> Budget:
        """The same for a ledger."""
        return Budget(usd=self.usd, tokens=self.tokens, calls=self.calls, seconds=self.seconds)

    def changed(self, **fields: Any) -> Caps:
        """The same caps but for these."""
        return Caps.model_validate({**self.model_dump(), **fields})


def _known_limits(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    known = [limit.name for limit in fields(Limits)]
    for name, value in given.items():
        if name not in known:
            raise PydanticCustomError(
                "limit", "{name} is not known; known here: {known}", {"name": name, "known": ", ".join(known)}
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise PydanticCustomError("limit", "{name} must be a number above 0", {"name": name})
        if isinstance(getattr(Limits(), name), int) and value != int(value):
            raise PydanticCustomError("limit", "{name} must be a whole number", {"name": name})
    return Limits(**given)


class Job(_Value):
    """A batch job. Make one from a file with `load`, from the job table with `of`; raises JobError, or pydantic's
    ValidationError where it is made in Python."""

    name: str = Field(default="", max_length=200)
    documents: tuple[str, ...] = Field(default=(), strict=False)
    """Files, folders, globs, `@FILE` (a list, a path a line) or `-` (a list on standard input)."""
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=MAX_TASKS, strict=False)
    model: str | None = None
    """None: the configuration's, else offline."""
    kv: str | None = None
    """How the cache of a local model is compressed."""
    profile: Profile | None = None
    embedder: str = DEFAULT_EMBEDDER
    store: StoreMode = "use"
    password: str | None = Field(default=None, repr=False)
    """Opens encrypted PDFs. It is in no job file."""
    caps: Caps = Caps()
    """For the whole job."""
    per_document: Caps = Caps()
    """For all that is asked of one document."""
    parsing: Annotated[Limits, BeforeValidator(_known_limits)] = Limits()
    attempts: int = Field(default=3, ge=1, le=100)
    """A task whose worker died on it so often has failed."""

    @field_validator("tasks", mode="after")
    @classmethod
    def _identified(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        return with_ids(tasks)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Job:
        """The job that a TOML file says. Raises JobError, naming the file and the key."""
        from lcdoc.jobs.job_file import load

        return load(Path(path))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Job:
        """The job whose `settings()` these are. Raises JobError for those of another version of lcdoc."""
        try:
            return cls.model_validate_json(json.dumps({key: settings[key] for key in settings if key != "same"}))
        except ValidationError as error:
            raise misfit(error, "the job is of another version of lcdoc: ", "begin it anew") from None

    def to_toml(self) -> str:
        """The job as a file that `load` reads, without the password."""
        from lcdoc.jobs.job_file import to_toml

        return to_toml(self)

    def settings(self) -> dict[str, Any]:
        """Everything, as plain JSON values: what the job table keeps, for workers. `same` is the fingerprint."""
        kept = self.model_dump(mode="json", by_alias=True, exclude={"parsing"})
        return {**kept, "parsing": asdict(self.parsing), "same": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """The same for jobs that ask the same of the same documents, by the same model and means."""
        kept = self.model_dump(mode="json", by_alias=True, exclude={"parsing", *_SAME_WHATEVER})
        text = json.dumps([kept, asdict(self.parsing)], sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def asked_model(self) -> str | None:
        """The model's name with how its cache is compressed, as a workspace takes it. Raises ModelError."""
        if self.kv is None:
            return self.model
        from lcdoc.workflows.models import with_recipe

        return with_recipe(self.model, self.kv)

    def changed(self, **fields: Any) -> Job:
        """The same job with other values, which are checked. Raises pydantic's ValidationError."""
        return Job.model_validate({**{name: getattr(self, name) for name in Job.model_fields}, **fields})


def with_ids(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, each with an id of its own: those that have none are named by their words, so that a question put in
    between changes no other's id. Raises PydanticCustomError for an id given twice."""
    taken: set[str] = set()
    for task in tasks:
        if task.id and task.id in taken:
            raise PydanticCustomError("id", "two tasks have the id {id}; give each its own", {"id": repr(task.id)})
        taken.add(task.id)
    named: list[Task] = []
    for task in tasks:
        if task.id:
            named.append(task)
            continue
        chosen = _free(_slug(task), taken)
        taken.add(chosen)
        named.append(task.model_copy(update={"id": chosen}))
    return tuple(named)


def _slug(task: Task) -> str:
    """`when-does-the-lease-end`"""
    said = task.question if isinstance(task, AskTask) else " ".join(filter(None, (task.kind, _of(task))))
    words = re.findall(r"\w+", said.lower())
    slug = ""
    for word in words:
        longer = f"{slug}-{word}" if slug else word
        if len(longer) > _ID_CHARACTERS and slug:
            break
        slug = longer[:_ID_CHARACTERS]
    return slug or task.kind


def _of(task: SummarizeTask | ExtractTask) -> str:
    return task.about if isinstance(task, SummarizeTask) else task.question


def _free(name: str, taken: Iterable[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
