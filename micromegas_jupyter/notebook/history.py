"""Statements without their values, stored for the side panels of other kernels."""

from __future__ import annotations

import json
import re
import secrets
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.files import FileProblem, read_private_file, write_private_file

if TYPE_CHECKING:
    from pathlib import Path

_MAX_KERNELS: Final = 20
_MAX_STATEMENTS: Final = 100
_QUOTED_NAME: Final = r'("(?:[^"]|"")*+"?)'
_VALUE: Final = re.compile(
    rf"{_QUOTED_NAME}|--[^\n]*|/\*.*?(?:\*/|\Z)|\b[eE]'(?:[^'\\]|\\.|'')*+'?|(?:\b[\w&]+)?'(?:[^']|'')*+'?"
    r"|\$(\w*)\$.*?(?:\$\2\$|\Z)|(?<![\w$])\.?\d[\w.]*+",
    re.DOTALL,
)


def without_values(sql: str) -> str:
    """Return a statement without comments, and with `?` for each literal."""

    def replaced(found: re.Match[str]) -> str:
        return found[1] or (" " if found[0].startswith(("--", "/*")) else "?")

    return _VALUE.sub(replaced, sql).strip()


class StoredHistory:
    """Statements without values, for other kernels' side panels; each kernel has its own file, so they never block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{secrets.token_hex(8)}.json"
        self._statements: deque[str] = deque(maxlen=_MAX_STATEMENTS)

    def add(self, sql: str) -> None:
        """Store a statement; does nothing if the directory is unusable."""
        self._statements.append(without_values(sql))
        with suppress(OSError, FileProblem):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private_file(self._own, json.dumps(list(self._statements)).encode())
            for old in self._files()[_MAX_KERNELS:]:
                old.unlink(missing_ok=True)

    def others(self) -> list[str]:
        """Return other kernels' distinct statements, starting with those of the newest kernel."""
        found: dict[str, None] = {}
        with suppress(OSError):
            for path in self._files():
                with suppress(OSError, FileProblem, ValueError):
                    if path != self._own:
                        statements = json.loads(read_private_file(path)[0])
                        found.update(dict.fromkeys(sql for sql in reversed(statements) if isinstance(sql, str)))
        return list(found)[:_MAX_STATEMENTS]

    def _files(self) -> list[Path]:
        """Return all kernels' files, newest first."""
        return sorted(self._folder.glob("*.json"), key=lambda path: path.lstat().st_mtime, reverse=True)
