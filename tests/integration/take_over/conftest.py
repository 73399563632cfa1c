"""Servers that take each other's port over."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.integration.take_over.serving import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def servers(tmp_path: Path, runtime_folder: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, runtime_folder, stack)
