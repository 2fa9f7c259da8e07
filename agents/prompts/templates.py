"""The prompt files: `SKILL.PROFILE.md` beside this module, each with its version in the first line.

A file is a `version:` line, then the part for the system message and the part for the user message, each under a line
`=== system` or `=== user`. A line `@NAME` stands for the text of `_NAME.md`. `$name` in the user part is filled in;
what is filled in is never looked at as a template. The system part is the same for all requests of a skill, so that
servers can keep it as a prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from string import Template
from typing import Literal, get_args

from lcdoc.agents.models.model import Message, Profile

Skill = Literal[
    "read", "merge", "answer", "summarize", "condense", "choose", "judge", "list", "direct", "extract", "rows"
]
SKILLS: tuple[Skill, ...] = get_args(Skill)

_FOLDER = Path(__file__).parent
_FILE = re.compile(r"version: (?P<version>\d+)\n+=== system\n(?P<system>.+?)\n=== user\n(?P<user>.+)", re.DOTALL)
_BREAK = "\n\n"
"""Between the paragraphs of a prompt."""
_PART = re.compile(r"^@([a-z]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """A prompt of one skill for one profile of models."""

    skill: Skill
    profile: Profile
    version: int
    system: str
    user: str
    """With `$name` for what is filled in."""

    @property
    def name(self) -> str:
        """Skill, profile and version, as `Request.prompt` gives them: `read/large/1`."""
        return f"{self.skill}/{self.profile}/{self.version}"

    @property
    def digest(self) -> str:
        """Of every character of both parts: tells whether the text changed without its version."""
        return blake2b(f"{self.system}\0{self.user}".encode(), digest_size=8).hexdigest()

    @property
    def begins_with_passages(self) -> bool:
        """Whether what is read stands first, so that prompts about the same passages begin alike."""
        return self.user.startswith(f"$passages{_BREAK}")

    def messages(self, **fields: str) -> tuple[Message, Message]:
        """The two messages, `fields` filled in. Raises KeyError for a field that the prompt has and `fields` lack."""
        # By paragraphs, so that a field that is empty leaves no hole; what is filled in is not touched.
        paragraphs = (Template(paragraph).substitute(fields) for paragraph in self.user.split(_BREAK))
        return Message("system", self.system), Message("user", _BREAK.join(filter(None, paragraphs)))


def beginning(passages: str) -> int:
    """Characters of a message that begins with `passages`, up to what changes with the question."""
    return len(passages) + len(_BREAK)


@cache
def prompt(skill: Skill, profile: Profile) -> Prompt:
    """The prompt of `skill` for models of `profile`. Raises ValueError for a file that is not one."""
    path = _FOLDER / f"{skill}.{profile}.md"
    match = _FILE.fullmatch(path.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{path.name} is no prompt: it needs a version line, === system and === user")
    system = _PART.sub(lambda part: _part(part[1]), match["system"])
    return Prompt(skill, profile, int(match["version"]), system.strip(), match["user"].strip())


@cache
def _part(name: str) -> str:
    return (_FOLDER / f"_{name}.md").read_text(encoding="utf-8").strip()
