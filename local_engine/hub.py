"""Where a model's files are: in a local folder, or on Hugging Face's hub, from which they are fetched once.

Only configuration, tokenizer and safetensors files are fetched. No code is: `trust_remote_code` does not exist here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lcdoc.local_engine.errors import ModelFilesError

Progress = Callable[[int, int], None]
"""Told the bytes fetched so far and the bytes there are, as far as they are known."""

_FILES: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    # By these names alone: other safetensors files of a repository hold the same weights in other shapes.
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
)
_HUB_ID: Final = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")


def locate(name: str | Path, progress: Progress | None = None) -> Path:
    """The folder with a model's files.

    `name` is a folder, or a model on the hub: `org/name`, or `org/name@revision`. A folder goes first. What the hub has
    is fetched into its cache (HF_HOME), unless it is there already; with HF_HUB_OFFLINE set nothing is asked of the
    network. Raises ModelFilesError, which says where it looked.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not folder.joinpath("config.json").is_file():
            raise ModelFilesError(
                f"{folder}: has no config.json: name the folder that holds the model's files (config.json, "
                "tokenizer.json, *.safetensors)"
            )
        return folder
    if folder.exists():
        raise ModelFilesError(f"{folder}: a file: name the folder that holds the model's files")
    match = _HUB_ID.fullmatch(str(name))
    if match is None:
        raise ModelFilesError(
            f"{name}: no such folder, and no name of a model on Hugging Face's hub either (org/name or "
            "org/name@revision): check the path"
        )
    return _fetch(folder, match["repository"], match["revision"], progress)


def _fetch(folder: Path, repository: str, revision: str | None, progress: Progress | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    looked = f"{folder.absolute()} and {_cache_folder(Path(constants.HF_HUB_CACHE), repository)}"
    shown = f"{repository}@{revision}" if revision else repository
    try:
        fetched = snapshot_download(
            repository, revision=revision, allow_patterns=list(_FILES), tqdm_class=_bars(progress)
        )
    except hub.GatedRepoError:
        raise ModelFilesError(
            f"{shown}: the hub gives it only to those who accepted its terms: accept them on its page, then log in "
            "with `hf auth login` or set HF_TOKEN"
        ) from None
    except hub.RevisionNotFoundError:
        raise ModelFilesError(f"{shown}: the hub has no such revision of it: check the name behind the @") from None
    except hub.RepositoryNotFoundError:
        raise ModelFilesError(
            f"{shown}: neither a folder ({folder.absolute()}) nor a model on the hub: check its name, or log in with "
            "`hf auth login` if it is private"
        ) from None
    except hub.HFValidationError as error:
        raise ModelFilesError(f"{shown}: not a name that the hub allows ({error}): check it") from None
    except hub.LocalEntryNotFoundError as error:
        why = "the hub cannot be reached" + (f" ({_first_line(error.__cause__)})" if error.__cause__ else "")
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set"
        raise ModelFilesError(
            f"{shown}: not whole on this machine (looked in {looked}), and {why}: fetch it where there is a network "
            f"(`hf download {repository}`), and name the folder it is in"
        ) from None
    except Exception as error:  # noqa: BLE001  (the HTTP library beneath differs by version, and with it its errors)
        raise ModelFilesError(
            f"{shown}: cannot be fetched ({_first_line(error)}; looked in {looked} before): try again, or name a folder"
        ) from None
    found = Path(fetched)
    if not any(found.glob("*.safetensors")):
        raise ModelFilesError(
            f"{shown}: the hub has no safetensors weights of it: take a copy that has, or convert it where you trust "
            "its pickles, with transformers: AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    return found


def _cache_folder(cache: Path, repository: str) -> Path:
    return cache / f"models--{repository.replace('/', '--')}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _bars(progress: Progress | None) -> Any:
    """A class of progress bars that show nothing and tell `progress` of the bytes."""
    from tqdm import tqdm

    seen: dict[int, tuple[int, int]] = {}

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            # One bar counts files; some count bytes, those received and those written.
            self._of_bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            # The base class does not count what it does not show.
            self.n += n or 0
            if progress is not None and self._of_bytes:
                seen[id(self)] = int(self.n), int(self.total or 0)
                fetched, total = (max(numbers) for numbers in zip(*seen.values(), strict=True))
                progress(fetched, max(fetched, total))

    return Bar
