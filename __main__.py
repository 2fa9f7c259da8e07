"""`python -m lcdoc`, and the `lcdoc` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ctrl-C while it is still importing ends it as quietly as later."""
    try:
        from lcdoc.cli import app

        app(prog_name="lcdoc")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
