"""What every test lives under: no network but loopback, no settings of the person who runs the tests."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}
_real_connect = socket.socket.connect
_real_connect_ex = socket.socket.connect_ex


class NetworkUsed(RuntimeError):
    """A test reached for a host other than this machine."""


def _check_address(address: object) -> None:
    if isinstance(address, tuple) and address[0] not in _LOOPBACK_HOSTS:
        raise NetworkUsed(f"a test connected to {address[0]}")


def _guarded_connect(self: socket.socket, address: object) -> None:
    _check_address(address)
    _real_connect(self, address)  # type: ignore[arg-type]


def _guarded_connect_ex(self: socket.socket, address: object) -> int:
    _check_address(address)
    return _real_connect_ex(self, address)  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign,assignment]
    yield
    socket.socket.connect = _real_connect  # type: ignore[method-assign]
    socket.socket.connect_ex = _real_connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty home folder and an environment without this project's variables."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        if name.startswith(("MICROMEGAS_", "CLAUDECODE", "CLAUDE_CODE")):
            monkeypatch.delenv(name)
    return home


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at 2026-11-24 12:00 UTC."""
    return FakeClock()
