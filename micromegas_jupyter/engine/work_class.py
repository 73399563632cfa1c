"""Tells before a statement runs whether it is likely to be heavy, from its plan and the size of what it reads.

This is an estimate that costs next to nothing; that a statement worked for long is noticed by whoever runs it.
"""

from __future__ import annotations

import enum
import functools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from micromegas_jupyter.engine.scanner import Scan

#: What a file at an address that is not this machine's counts.
_REMOTE_BYTES: Final = 4 << 20

# A literal with a line break could look like a line of its own; then a statement waits that need not.
_MULTIPLYING = re.compile(r"^ *(?:Cross Join:|RecursiveQuery:|\w+ Join: *(?:Filter:(?!.* = )|$))", re.MULTILINE)
_GENERATING = re.compile(r"^ *TableScan: \w+\(\)", re.MULTILINE)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Small:
    """What is still small: bytes of files, and the digits of numbers where a statement makes its own rows."""

    file_bytes: int
    digits: int


#: Files of this size are read and aggregated in about 0.1 s.
_ONCE: Final = _Small(file_bytes=16 << 20, digits=5)
#: Where each row meets each other row, or rows come of rows.
_MANY_TIMES: Final = _Small(file_bytes=256 << 10, digits=3)


class WorkClass(enum.StrEnum):
    """How much work a statement is likely to be; that it is medium, only experience tells."""

    SMALL = "small"
    MEDIUM = "medium"
    HEAVY = "heavy"


def estimate_work(plan_text: str, scanned: Scan, files: Iterable[str]) -> WorkClass:
    """Return the class of a statement.

    Args:
        plan_text: Its plan, which was not optimised, one step a line.
        scanned: Its text.
        files: The files of the tables that it names.
    """
    most = _MANY_TIMES if _MULTIPLYING.search(plan_text) else _ONCE
    makes_rows = most is _MANY_TIMES or _GENERATING.search(plan_text) is not None
    if makes_rows and any(len(found) > most.digits for found in _NUMBER.findall(scanned.sql)):
        return WorkClass.HEAVY
    total = 0
    for file in files:
        total += _size_of(file)
        if total > most.file_bytes:
            return WorkClass.HEAVY
    return WorkClass.SMALL


@functools.lru_cache(maxsize=65536)
def _size_of(file: str) -> int:
    """Return the size of a file, which never changes: tables are made of files that are written once."""
    try:
        return _REMOTE_BYTES if "://" in file else os.stat(file).st_size  # noqa: PTH116 - many files, and Path is slow
    except OSError:
        return 0  # it is gone, which whoever reads it will say
