"""Takes the places of files out of EXPLAIN's text; the rest of a plan stays as it is."""

from __future__ import annotations

import os.path
import re
import urllib.parse
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

# The label of a counter; a name may hold blanks and commas.
_FILE_LABEL = re.compile(r"filename=[^}]*")
_FILE_GROUPS = re.compile(r"file_groups=\{(\d+ groups?): \[.*?\]\}", re.DOTALL)


class PathScrubber:
    """Knows the folders of one statement's files and removes paths below them from text."""

    def __init__(self, files: Iterable[Iterable[str]]) -> None:
        folders = {folder for table in files for folder in _folders(tuple(table))}
        spellings = {spelling for folder in folders for spelling in (folder, urllib.parse.quote(folder))}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._paths = (
            re.compile(r"/?(?:" + "|".join(map(re.escape, longest_first)) + r")(?:/[^\s,\]\[{}\"']*)?")
            if longest_first
            else None
        )

    def clean(self, text: str) -> str:
        """Return `text` with numbers of file groups in place of lists, and `…` in place of any path left."""
        text = _FILE_GROUPS.sub(r"file_groups={\1}", text)
        text = _FILE_LABEL.sub("filename=…", text)
        return self._paths.sub("…", text) if self._paths else text

    def clean_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return `batch` with every string column cleaned."""
        columns = [
            pa.array([None if text is None else self.clean(text) for text in column.to_pylist()], column.type)
            if pa.types.is_string(column.type) or pa.types.is_string_view(column.type)
            else column
            for column in batch.columns
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _folders(files: tuple[str, ...]) -> set[str]:
    """Return the folder that holds all files of a table, or all their folders when only the root does."""
    folders = {file.rpartition("/")[0].rpartition("://")[2].strip("/") for file in files}
    folders.discard("")
    if not folders:
        return set()
    common = os.path.commonpath(folders)
    return {common} if common else folders
