"""Keys: from a variable or a file, for the server that they are meant for and no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lcdoc.agents.models.addresses import KEY_VARIABLE, Address
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.secrets import Key, SecretHeaders

_MAX_KEY_BYTES: Final = 16_384


def variable_key(name: str, address: Address) -> Key | None:
    """The key that the variable of `address` holds; None where there may be none. Raises ModelConfigError."""
    variable = address.key_variable
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        if not address.key_required:
            return None
        hint = ""
        if variable == KEY_VARIABLE and address.original:
            hint = f", or name the model openai/{address.model or 'NAME'} to use OPENAI_API_KEY"
        raise ModelConfigError(name, f"{variable} is not set", f"set it to your key for {address.base_url}{hint}")
    return _key(name, value, f"the variable {variable}")


def file_key(name: str, path: Path) -> tuple[Key, tuple[str, ...]]:
    """The key that a file holds, and what the user should know of it. Raises ModelConfigError."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        problem = f"its key file {path} cannot be read ({error.strerror})"
        raise ModelConfigError(name, problem, "correct key_file, or make the file readable") from error
    if len(raw) > _MAX_KEY_BYTES:
        raise ModelConfigError(
            name, f"its key file {path} is too long for a key", "let it hold the key and nothing else"
        )
    value = raw.decode("utf-8", "replace").strip()
    if not value:
        raise ModelConfigError(name, f"its key file {path} is empty", "write the key into it")
    notes: tuple[str, ...] = ()
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        notes = (f"other users of this machine can reach the key file {path}; `chmod 600` keeps them out",)
    return _key(name, value, f"the file {path}"), notes


def _key(name: str, value: str, source: str) -> Key:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ModelConfigError(name, f"what {source} holds is not a key", "it is one line of plain letters and digits")
    return Key(value, source=source)


def secret_headers(name: str, variables: Mapping[str, str]) -> SecretHeaders:
    """Headers by name, their values from the variables that hold them. Raises ModelConfigError."""
    headers: list[tuple[str, Key]] = []
    for header, variable in variables.items():
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ModelConfigError(name, f"{variable} is not set", f"set it to the value of its header {header}")
        if not value.isascii() or not value.isprintable():
            raise ModelConfigError(
                name, f"what the variable {variable} holds cannot be sent in a header", "it is one line of plain text"
            )
        headers.append((header, Key(value, source=f"the variable {variable}")))
    return tuple(headers)
