"""A provider on loopback, for the tests that run none of their own kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.scripted_provider import ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running
