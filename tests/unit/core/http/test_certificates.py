"""Tests of `http.bounded_calls`."""

from __future__ import annotations

import os
from pathlib import Path

import certifi
import pytest

from micromegas_jupyter.core.http import MAX_BUNDLE_BYTES, environment_ca_bundle, read_certificates
from micromegas_jupyter.errors import ConfigurationError

BEGIN = "-----BEGIN CERTIFICATE-----"


@pytest.fixture(scope="module")
def certificate() -> str:
    text = Path(certifi.where()).read_text(encoding="utf-8")
    start = text.index(BEGIN)
    return text[start : text.index(BEGIN, start + 1)].partition("\n\n")[0]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "ca.pem"
    path.write_bytes(content)
    return path


def test_the_certificates_of_a_bundle_are_read_and_nothing_else(tmp_path, certificate):
    key = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n"
    path = write(tmp_path, f"# Räuber\n{certificate}\n{key}{certificate}\n".encode("latin-1"))

    text = read_certificates(path)

    assert text.count(BEGIN) == 2
    assert "PRIVATE" not in text
    assert text.isascii()


def test_a_whole_bundle_is_read():
    assert read_certificates(Path(certifi.where())).count(BEGIN) > 50


def test_a_bundle_behind_a_link_is_read(tmp_path, certificate):
    (tmp_path / "link.pem").symlink_to(write(tmp_path, certificate.encode()))

    assert BEGIN in read_certificates(tmp_path / "link.pem")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nc2VzYW1l\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n\xff\xfe\n-----END CERTIFICATE-----\n",
        b"\x00" * 10,
        b" " * (MAX_BUNDLE_BYTES + 1),
    ],
)
def test_a_file_without_a_usable_certificate_is_refused(tmp_path, content):
    with pytest.raises(ConfigurationError) as caught:
        read_certificates(write(tmp_path, content))

    assert caught.value.key == "ca_bundle"
    assert str(tmp_path) not in str(caught.value)


def test_one_damaged_certificate_among_good_ones_is_refused(tmp_path, certificate):
    damaged = certificate.replace("MII", "AAA", 1)

    with pytest.raises(ConfigurationError, match="damaged"):
        read_certificates(write(tmp_path, f"{certificate}\n{damaged}\n{certificate}\n".encode()))


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "nowhere.pem", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigurationError):
            read_certificates(path)


def test_the_environment_names_a_bundle_as_for_requests(tmp_path, monkeypatch):
    first, second = write(tmp_path, b""), tmp_path
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    assert environment_ca_bundle() is None

    monkeypatch.setenv("CURL_CA_BUNDLE", str(second))
    assert environment_ca_bundle() == str(second)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(first))
    assert environment_ca_bundle() == str(first)


def test_a_bundle_of_the_environment_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    with pytest.raises(ConfigurationError):
        environment_ca_bundle()
