"""Tests of `access.configuration`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access import config as configuration
from micromegas_jupyter.access.config import ConfigurationTexts, Reading, marks_of
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

KEYS = json.dumps([{"name": "report", "key": "a-plain-text-key"}])


def read_configuration(environ: dict[str, str]) -> ConfigurationTexts:
    return Reading(environ).whole()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(KEYS)
    return path


@pytest.fixture
def config_file(tmp_path: Path, key_file: Path) -> Path:
    path = tmp_path / "access.json"
    path.write_text(json.dumps({"api_key_file": str(key_file)}))
    return path


def by_key_file(path: Path) -> dict[str, str]:
    return {"MICROMEGAS_API_KEY_FILE": str(path)}


def by_config(path: Path) -> dict[str, str]:
    return {"MICROMEGAS_ACCESS_CONFIG": str(path)}


def test_without_files_there_is_nothing_to_read_or_to_watch() -> None:
    texts = read_configuration({"MICROMEGAS_API_KEYS": KEYS})

    assert (texts.config_text, texts.key_file_text, texts.marks) == (None, None, {})
    assert [key.name for key in texts.parse().api_keys] == ["report"]


def test_a_key_file_is_found_through_its_variable(key_file: Path) -> None:
    texts = read_configuration(by_key_file(key_file))

    assert texts.key_file_text == KEYS
    assert texts.marks == marks_of([key_file])
    assert [key.name for key in texts.parse().api_keys] == ["report"]


def test_a_key_file_is_found_through_the_configuration_file(config_file: Path, key_file: Path) -> None:
    texts = read_configuration(by_config(config_file))

    assert texts.config_text == config_file.read_text()
    assert texts.marks == marks_of([config_file, key_file])
    assert [key.name for key in texts.parse().api_keys] == ["report"]


def test_a_tilde_is_the_home_folder(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(key_file.parent))

    assert read_configuration({"MICROMEGAS_API_KEY_FILE": "~/keys.json"}).key_file_text == KEYS


def test_links_are_followed_as_mounted_configuration_is_linked(key_file: Path) -> None:
    link = key_file.with_name("link")
    link.symlink_to(key_file)

    texts = read_configuration(by_key_file(link))

    assert texts.key_file_text == KEYS
    assert list(texts.marks.values()) == list(marks_of([key_file]).values())


@pytest.mark.parametrize("named_by", [by_key_file, by_config])
def test_a_file_that_cannot_be_used_is_an_error_that_names_the_setting(named_by: object, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff")

    for name in ("missing", "pipe", "bytes", "."):
        environ = named_by(tmp_path / name)  # type: ignore[operator]
        with pytest.raises(ConfigurationError) as caught:
            read_configuration(environ)
        assert caught.value.key == next(iter(environ))
        assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_that_the_configuration_file_names_is_an_error(config_file: Path, key_file: Path) -> None:
    key_file.unlink()

    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        read_configuration(by_config(config_file))

    assert caught.value.key == "MICROMEGAS_ACCESS_CONFIG.api_key_file"


@pytest.mark.parametrize("named_by", [by_key_file, by_config])
def test_a_file_that_everybody_may_change_is_refused(named_by: object, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("[]")
    path.chmod(0o646)

    with pytest.raises(ConfigurationError, match="chmod"):
        read_configuration(named_by(path))  # type: ignore[operator]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_other_modes_are_the_administrators_choice(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    assert read_configuration(by_key_file(key_file)).key_file_text == KEYS
    assert key_file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("named_by", [by_key_file, by_config])
def test_a_file_of_another_user_is_refused(named_by: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("[]")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(ConfigurationError, match="another user"):
        read_configuration(named_by(path))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("named_by", "limit"), [(by_key_file, "MAX_KEY_FILE_BYTES"), (by_config, "MAX_CONFIG_FILE_BYTES")]
)
def test_a_file_beyond_the_limit_is_refused(
    named_by: object, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("{}" + " " * 10)
    monkeypatch.setattr(configuration, limit, 10)

    with pytest.raises(ConfigurationError, match="too large"):
        read_configuration(named_by(tmp_path / "file"))  # type: ignore[operator]


def test_a_fingerprint_is_that_of_the_contents(config_file: Path, key_file: Path) -> None:
    first = Reading(by_config(config_file)).fingerprint()
    key_file.write_text(KEYS)
    same = Reading(by_config(config_file)).fingerprint()
    key_file.write_text(KEYS + " ")
    other = Reading(by_config(config_file)).fingerprint()
    key_file.unlink()
    missing = Reading(by_config(config_file)).fingerprint()

    assert first == same
    assert len({same, other, missing}) == 3


def test_only_files_that_can_be_read_make_a_reading_complete(config_file: Path, key_file: Path) -> None:
    complete = Reading(by_config(config_file)).is_complete
    key_file.unlink()

    assert (complete, Reading(by_config(config_file)).is_complete) == (True, False)


def test_one_file_may_stay_as_it_was(config_file: Path, key_file: Path) -> None:
    before = read_configuration(by_config(config_file))
    config_file.write_text(json.dumps({"api_key_file": str(key_file), "admins": []}))
    key_file.write_text("[]")

    parts = [(part.config_text, part.key_file_text) for part in Reading(before.environ, before=before).parts()]

    assert parts == [(before.config_text, "[]"), (config_file.read_text(), KEYS)]


def test_keys_of_another_file_are_not_taken_for_those_of_this_one(config_file: Path, tmp_path: Path) -> None:
    before = read_configuration(by_config(config_file))
    other = tmp_path / "other.json"
    other.write_text("[]")
    config_file.write_text(json.dumps({"api_key_file": str(other)}))

    parts = [(part.config_text, part.key_file_text) for part in Reading(before.environ, before=before).parts()]

    assert parts == [(before.config_text, KEYS)]


def test_while_the_configuration_file_is_malformed_the_key_file_that_it_named_is_read(
    config_file: Path, key_file: Path
) -> None:
    before = read_configuration(by_config(config_file))
    config_file.write_text("[")
    key_file.write_text("[]")
    reading = Reading(before.environ, before=before)

    assert reading.readable(before.config_text) == ("[", "[]")
    assert set(reading.marks) == {config_file, key_file}


def test_without_anything_before_there_are_no_parts(config_file: Path) -> None:
    assert list(Reading(by_config(config_file)).parts()) == []


@pytest.mark.parametrize(
    ("mode", "text", "sentences"),
    [
        (0o644, KEYS, ["API keys in plain text stand in a file that every user of this machine can read."]),
        (0o640, KEYS, []),
        (0o644, json.dumps([{"name": "x", "sha256": "ab" * 32}]), []),
        (0o644, "[", []),
        (0o660, KEYS, ["A file of the access configuration can be changed by its group."]),
    ],
)
def test_a_file_that_is_more_open_than_it_should_be_leaves_a_warning(
    key_file: Path, mode: int, text: str, sentences: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    key_file.write_text(text)
    key_file.chmod(mode)

    Reading(by_key_file(key_file)).warn()

    assert caplog.messages == sentences


def test_of_a_file_that_cannot_be_read_nothing_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Reading(by_key_file(tmp_path / "missing")).warn()

    assert caplog.records == []


def test_keys_in_the_configuration_file_itself_are_seen_too(
    config_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config_file.write_text(json.dumps({"api_keys": json.loads(KEYS)}))

    Reading(by_config(config_file)).warn()

    assert [vars(record)["setting"] for record in caplog.records] == ["MICROMEGAS_ACCESS_CONFIG"]


def test_contents_do_not_show_in_a_representation(key_file: Path) -> None:
    environ = {**by_key_file(key_file), "MICROMEGAS_API_KEYS": '[{"name": "x", "key": "another-secret-key"}]'}

    shown = repr(read_configuration(environ))

    assert "a-plain-text-key" not in shown
    assert "another-secret-key" not in shown


def test_a_missing_file_has_no_mark(tmp_path: Path) -> None:
    assert marks_of([tmp_path / "missing"]) == {tmp_path / "missing": None}


def test_a_file_that_cannot_be_looked_at_has_no_mark(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)

    assert marks_of([path]) == {path: None}
