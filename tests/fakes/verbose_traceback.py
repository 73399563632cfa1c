"""What a verbose traceback shows of the package: each frame with the values of its variables."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import micromegas_jupyter
from micromegas_jupyter.errors import MicromegasError

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGE = str(Path(str(micromegas_jupyter.__file__)).parent)


def verbose_traceback(call: Callable[[], object]) -> str:
    """Return how the error that a call ends with is shown; the test's own frames hold what it looks for."""
    with pytest.raises(MicromegasError) as caught:
        call()
    told: traceback.TracebackException | None = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    lines: list[str] = []
    while told is not None:
        lines += told.format_exception_only()
        frames = [frame for frame in told.stack if frame.filename.startswith(_PACKAGE)]
        lines += [f"{frame.name} {frame.locals}" for frame in frames]
        told = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    assert len(lines) > 1
    return "\n".join(lines)
