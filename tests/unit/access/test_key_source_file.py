"""Tests of `access.key_source` with keys from a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import KeyPolicy, KeySource
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider
from tests.unit.access.conftest import key_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.background import FakeBackground
    from tests.fakes.clock import FakeClock
    from tests.fakes.mint import SigningKey


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


def write(path: Path, *keys: SigningKey) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"keys": [key.jwk() for key in keys]}))
    temporary.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write(path, rsa_key())
    return path


@pytest.fixture
def source(file: Path, provider: FakeProvider, clock: FakeClock, background: FakeBackground) -> KeySource:
    setting = IssuerSetting(issuer=ISSUER, jwks_file=str(file))
    return KeySource(setting, http=provider, clock=clock, policy=KeyPolicy(), start_background=background.start)


def test_nothing_is_fetched(source, provider):
    assert key_names(source) == ["rsa"]
    assert provider.requested == []


def test_a_changed_file_is_read_within_a_second(source, file, clock):
    source.current()
    write(file, ec_key())

    assert key_names(source) == ["rsa"]
    clock.advance(1)
    assert key_names(source) == ["ec"]


def test_an_unchanged_file_is_not_read_again_before_the_interval_ends(source, file, clock, background):
    first = source.current()
    clock.advance(2879)

    assert source.current() is first
    clock.advance(721)
    assert source.current() is not first
    assert background.waiting == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": []}', '{"keys": 1, "keys": 2}', "\xff", "x" * 1_000_001])
def test_a_malformed_file_keeps_the_last_good_keys(source, file, clock, text):
    first = source.current()
    file.write_text(text, encoding="latin-1")
    clock.advance(1)

    assert source.current() is first
    write(file, ec_key())
    clock.advance(1)
    assert key_names(source) == ["ec"]


def test_a_removed_file_keeps_the_last_good_keys(source, file, clock):
    first = source.current()
    file.unlink()
    clock.advance(4000)

    assert source.current() is first


def test_a_file_that_is_missing_at_the_start_is_read_when_it_comes(source, file, clock):
    file.unlink()
    for _ in range(8):
        with pytest.raises(Unavailable):
            source.current()
        clock.advance(1)
    write(file, ec_key())
    clock.advance(1)

    assert key_names(source) == ["ec"]


def test_the_event_says_what_is_wrong_and_not_where(source, file, caplog):
    file.unlink()
    with pytest.raises(Unavailable):
        source.current()

    assert vars(caplog.records[0])["detail"] == (
        "A file that https://id.example.com needs cannot be read: No such file or directory."
    )
