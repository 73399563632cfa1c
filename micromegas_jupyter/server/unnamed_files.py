"""Bytes as files, for a library that reads files only: so that it reads what was checked, whatever was written since.

On Linux these files have no name and lie in memory; elsewhere they are in a folder of one's own and go at once.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_OPEN_FILES: Final = Path("/proc/self/fd")


@contextmanager
def as_files(*contents: bytes) -> Iterator[tuple[Path, ...]]:
    """Have files with these contents in the body, which nobody else can write.

    Raises:
        OSError: They cannot be made.
    """
    with ExitStack() as stack:
        if sys.platform == "linux" and _OPEN_FILES.is_dir():
            yield tuple(_in_memory(stack, content) for content in contents)
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield tuple(_in_folder(folder / str(number), content) for number, content in enumerate(contents))


if sys.platform == "linux":

    def _in_memory(stack: ExitStack, content: bytes) -> Path:
        stream = stack.enter_context(os.fdopen(os.memfd_create("checked"), "w+b"))
        stream.write(content)
        stream.flush()
        return _OPEN_FILES / str(stream.fileno())


def _in_folder(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
