"""How a command ends whose reader cannot be loaded: no traceback, one line, exit code 2."""

import pytest
import typer

from lcdoc.agents.span_reader.weights import SpanReaderError
from lcdoc.commands.guard import BAD_INPUT, BUG, guarded


@pytest.mark.parametrize(("error", "code"), [(SpanReaderError("gone; reinstall lcdoc"), BAD_INPUT), (KeyError(0), BUG)])
def test_weights_that_are_missing_are_the_users_to_mend(capsys, error, code):
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert ("a bug in lcdoc" in line) == (code == BUG)
