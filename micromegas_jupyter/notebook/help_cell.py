"""Lets `%%sql --help` stand alone in a cell: IPython takes no cell magic without a body."""

from __future__ import annotations

import re

_HELP_ALONE = re.compile(r"%(%(?:sql|micromegas_sql)[ \t](?:[^\n]*[ \t])?--help\s*)")


def help_as_line_magic(lines: list[str]) -> list[str]:
    """Return a cell that only asks for help as a line magic, any other as it is; for `input_transformers_cleanup`."""
    found = _HELP_ALONE.fullmatch("".join(lines))
    return lines if found is None else [found[1].rstrip() + "\n"]
