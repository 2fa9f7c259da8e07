"""`lcdoc doctor`."""

from __future__ import annotations

import typer

from lcdoc.commands.guard import BAD_INPUT, guarded
from lcdoc.commands.options import DebugOption, JsonOption, LibraryOption


@guarded
def doctor(
    library: LibraryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what is installed, what devices there are, which keys are set (never their values), where the library is."""
    from lcdoc.screen import Screen
    from lcdoc.workflows.doctor import examine

    with Screen() as screen:
        findings = examine(library)
        if as_json:
            screen.json([finding.as_dict() for finding in findings])
        else:
            width = max(len(finding.name) for finding in findings)
            for finding in findings:
                mark = {"ok": " ok ", "note": " -- ", "problem": "FAIL"}[finding.state]
                screen.plain(f"[{mark}] {finding.name:<{width}}  {finding.detail}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(BAD_INPUT)
