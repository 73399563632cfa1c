"""A configuration file, a key file and an issuer's keys that change, and a validator that reads them again."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.asking import is_accepted
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ISSUER, ec_key
from tests.unit.access.reloading_scene import LASTING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from micromegas_jupyter.config.access import AccessSettings

IN_PART = "A part of a new version of the access configuration cannot be used; the rest is in force."
TRIED_AGAIN = "A new version of the access configuration could not be looked at; it is tried again."
FIRST, SECOND, THIRD = (f"{name}-plain-text-key" for name in ("alpha", "bravo", "delta"))
REVOKED = {"revoked_at": "2026-01-01T00:00:00Z"}


class Files:
    """A configuration file, a key file and a file with an issuer's keys."""

    def __init__(self, folder: Path) -> None:
        self.config, self.keys, self.jwks = (folder / name for name in ("access.json", "keys.json", "jwks.json"))
        self.jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        self.keys.write_text(self.key_text(FIRST, SECOND))
        self.config.write_text(self.config_text())

    @staticmethod
    def key_text(*keys: str, revoked: str = "", **more: object) -> str:
        return json.dumps(
            [{"name": key[:5], "key": key, **more, **(REVOKED if key == revoked else {})} for key in keys]
        )

    def config_text(self, **more: object) -> str:
        issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(self.jwks)}
        return json.dumps({"api_key_file": str(self.keys), "oidc": {"issuers": [issuer]}, **more})


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def make(files: Files, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., ReloadingValidator]]:
    """Make a validator that looks for changes only when a test says so."""
    made = []

    def make(check: Callable[[AccessSettings], None] | None = None) -> ReloadingValidator:
        validator = ReloadingValidator(
            {"MICROMEGAS_ACCESS_CONFIG": str(files.config)},
            check=check,
            clock=FakeClock(SYSTEM_CLOCK.now() + timedelta(hours=1)),
            watch_interval_seconds=3600,
        )
        made.append(validator)
        return validator

    with caplog.at_level(logging.INFO, "micromegas_jupyter.access"):
        yield make
    for validator in made:
        validator.close()


@pytest.fixture
def validator(make: Callable[..., ReloadingValidator]) -> ReloadingValidator:
    return make()


def accepted(validator: ReloadingValidator) -> list[bool]:
    return [is_accepted(validator, credential) for credential in (FIRST, SECOND, THIRD, LASTING)]
