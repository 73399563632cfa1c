"""A provider without sockets whose time is the fake clock's, and the parts that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
def idp(clock: FakeClock) -> ScriptedProvider:
    return ScriptedProvider(clock=clock)


@pytest.fixture
def calls(idp: ScriptedProvider) -> DirectCalls:
    return DirectCalls(idp)


@pytest.fixture
def home(_own_home: Path) -> Path:
    """The empty home folder of this test."""
    return _own_home
