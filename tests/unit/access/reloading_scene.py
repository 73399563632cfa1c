"""A file with API keys that changes, and a validator that reads it again when a test says so."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ec_key, mint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LASTING = mint(key=ec_key(), exp=4_000_000_000, iat=0)
OLD, NEW = "old-plain-text-key", "new-plain-text-key"
READ_AGAIN = "The access configuration was read again and is in force."
KEPT = "A new version of the access configuration cannot be used; the old one stays in force."


def keys_text(*keys: str, **more: object) -> str:
    return json.dumps([{"name": key[:3], "key": key, **more} for key in keys])


def put(path: Path, text: str) -> None:
    """Replace the file in one step, as an administrator's tools do."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def events(caplog: pytest.LogCaptureFixture, sentence: str) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.message == sentence]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(keys_text(OLD))
    return path


@pytest.fixture
def clock() -> FakeClock:
    """A clock by which every file has its mark for a long time already."""
    return FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=1))


@pytest.fixture
def make(caplog: pytest.LogCaptureFixture, clock: FakeClock) -> Iterator[Callable[..., ReloadingValidator]]:
    """Make a validator that looks for changes only when a test says so."""
    made = []

    def make(**environ: str) -> ReloadingValidator:
        validator = ReloadingValidator(environ, clock=clock, watch_interval_seconds=3600)
        made.append(validator)
        return validator

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        yield make
    for validator in made:
        validator.close()


@pytest.fixture
def validator(make: Callable[..., ReloadingValidator], path: Path) -> ReloadingValidator:
    return make(MICROMEGAS_API_KEY_FILE=str(path))
