"""Providers on sockets that several modules call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.tls_provider import TlsProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


@pytest.fixture
def tls_provider(tmp_path: Path) -> Iterator[TlsProvider]:
    with TlsProvider(tmp_path) as running:
        yield running
