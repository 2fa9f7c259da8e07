"""What can be wrong with how answering was asked for. Every message says what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class WorkflowError(Exception):
    """A workflow cannot do what was asked. `str(error)` is one line: what is wrong, and what the user can do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class UnknownWorkflowError(WorkflowError):
    """There is no workflow of that name. `meant` are the names most like it, the likeliest first."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        from rapidfuzz import fuzz, process

        close = process.extract(name.lower().replace("-", "_"), known, scorer=fuzz.ratio, score_cutoff=55, limit=2)
        self.meant = tuple(match for match, _, _ in close)
        remedy = f"did you mean {' or '.join(self.meant)}?" if self.meant else f"there are {', '.join(known)}"
        super().__init__(f"there is no workflow {name!r}", remedy)
