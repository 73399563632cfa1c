"""Answers where the magics run: in a kernel or a terminal, with a person or without."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def has_kernel(shell: InteractiveShell) -> bool:
    """Whether a Jupyter kernel runs the shell, so that displays can be rewritten and widgets shown."""
    return getattr(shell, "kernel", None) is not None


def is_alone_in_cell(shell: InteractiveShell) -> bool:
    """Whether the running cell is one line, so that all of its output is that line's."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return False
    source = kernel.get_parent("shell").get("content", {}).get("code", "")
    lines = (line.strip() for line in source.splitlines())
    return sum(1 for line in lines if line and not line.startswith("#")) == 1


def is_attended(shell: InteractiveShell) -> bool:
    """Whether a person can answer.

    A front end with a person sends `allow_stdin` true with each execute request; nbclient, nbconvert and
    papermill send false (Jupyter messaging protocol, `execute_request`).
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    request = kernel.get_parent("shell")
    return bool(request.get("content", {}).get("allow_stdin", False))
