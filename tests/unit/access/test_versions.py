"""Tests of `access.versions`; what a server makes of a choice is tested with `reloading`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.config import Reading, ValidatorBuilder, Versions
from micromegas_jupyter.config.access import LegacyApiKeys
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "a-plain-text-key"


@pytest.fixture
def builder() -> Iterator[ValidatorBuilder]:
    builder = ValidatorBuilder(clock=FakeClock())
    yield builder
    builder.close()


@pytest.fixture
def versions(builder: ValidatorBuilder) -> Versions:
    return Versions(builder, legacy_api_keys=LegacyApiKeys.ON, check=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([{"name": "report", "key": KEY}]))
    return path


def read(path: Path) -> Reading:
    return Reading({"MICROMEGAS_API_KEY_FILE": str(path), "MICROMEGAS_LEGACY_API_KEYS": "refuse"})


def test_a_version_is_what_its_texts_mean_but_for_plain_keys(versions: Versions, path: Path) -> None:
    version = versions.make(read(path).whole())

    assert version.settings.legacy_api_keys is LegacyApiKeys.ON
    assert version.validator.validate_token(KEY).subject == "report"


def test_a_version_that_lets_in_nobody_cannot_be_used(versions: Versions, path: Path) -> None:
    path.write_text("[]")

    with pytest.raises(ConfigurationError, match="nobody could sign in"):
        versions.make(read(path).whole())


@pytest.mark.parametrize(("text", "is_final"), [("[", True), (None, False)], ids=["malformed", "missing"])
def test_a_malformed_version_is_done_with_and_a_missing_file_is_not(
    versions: Versions, path: Path, text: str | None, is_final: bool
) -> None:
    before = versions.make(read(path).whole())
    path.unlink()
    if text is not None:
        path.write_text(text)

    choice = versions.choose(read(path), before=before)

    assert choice.version is before
    assert isinstance(choice.error, ConfigurationError)
    assert choice.is_final is is_final
