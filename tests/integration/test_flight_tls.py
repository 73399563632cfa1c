"""TLS with a certificate from files: who is served, which file cannot be used, and how it is renewed meanwhile."""

import http.client
import logging
import socket
import ssl
import warnings
from dataclasses import replace

import pyarrow.flight
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.settings import TlsFiles
from tests.fakes.certificates import Authority
from tests.fakes.servers import ENDLESS, NUMBERS, open_server
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60.0


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def pair(authority):
    return authority.issue("first")


@pytest.fixture
def files(pair):
    return TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)


@pytest.fixture
def server(files):
    with open_server(is_open=True, tls_files=files) as thread:
        yield thread


def _shown_name(port, authority):
    """Return the common name of the certificate that a new connection is shown."""
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    trust.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as raw,
        trust.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        shown = connection.getpeercert()
    return str(shown["subject"][0][0][1])


def test_an_authority_that_is_trusted_besides_the_usual_ones_is_enough_for_our_client(server, authority):
    with FlightSQLClient(server.uri, extra_ca_bundle=authority.ca_file) as client:
        frame = client.query(NUMBERS)
    with FlightSQLClient(server.uri) as client, pytest.raises(ServerUnavailable):
        client.query(NUMBERS)

    assert frame["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("wrong", "content"),
    [
        ("certificate_file", None), ("certificate_file", "neither a certificate nor a key"), ("key_file", None),
        ("key_file", "another key"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_by_its_setting(authority, files, tmp_path, wrong, content):
    file = authority.issue("other").key_file if content == "another key" else tmp_path / "wrong"
    if content not in {None, "another key"}:
        file.write_text(content)

    with pytest.raises(ConfigurationError) as caught, open_server(tls_files=replace(files, **{wrong: file})):
        pass

    assert caught.value.key == wrong
    assert str(tmp_path) not in str(caught.value)


def test_new_connections_get_the_renewed_certificate_and_a_running_call_goes_on(server, pair, authority):
    with pyarrow.flight.connect(server.uri, tls_root_certs=authority.ca_file.read_bytes()) as client:
        reader = client.do_get(pyarrow.flight.Ticket(statement_ticket(ENDLESS)))
        before = reader.read_chunk().data.num_rows
        first = _shown_name(server.port, authority)

        pair.replace_by(authority.issue("second"))

        second = _shown_name(server.port, authority)
        after = reader.read_chunk().data.num_rows
        reader.cancel()

    assert (first, second) == ("first", "second")
    assert before
    assert after


BREAK = {
    "no certificate": lambda pair, _other: pair.certificate_file.write_text("not a certificate"),
    "another key": lambda pair, other: pair.key_file.write_bytes(other.key_file.read_bytes()),
    "nothing": lambda pair, _other: pair.certificate_file.unlink(),
}


@pytest.mark.parametrize("broken", BREAK)
def test_a_broken_renewal_changes_nothing_and_is_logged_once(server, pair, authority, caplog, broken):
    _shown_name(server.port, authority)
    BREAK[broken](pair, authority.issue("other"))

    shown = [_shown_name(server.port, authority) for _ in range(3)]

    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert shown == ["first"] * 3
    assert [record.message for record in errors] == ["The changed certificate cannot be used; the former stays."]
    assert str(pair.key_file.parent) not in str(errors[0].__dict__["why"])

    pair.replace_by(authority.issue("second"))

    assert _shown_name(server.port, authority) == "second"


def test_the_http_endpoint_takes_over_a_renewed_certificate_whoever_never_shakes_hands(pair, files, authority):
    nobody = {"validator": None, "registries": [], "readiness": lambda: None}
    endpoint = HttpEndpoint("127.0.0.1", 0, **nobody, tls_files=files)
    port = endpoint.start()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(60)]
    try:
        first = _shown_name(port, authority)
        pair.replace_by(authority.issue("second"))
        wait_until(lambda: _shown_name(port, authority) == "second", "the new certificate")
        trust = ssl.create_default_context(cafile=str(authority.ca_file))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS, context=trust)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    finally:
        for unshaken in idle:
            unshaken.close()
        endpoint.stop()

    assert first == "first"
    assert "micromegas_tls_renewals_total 1.0" in text
    assert "micromegas_tls_certificate_expires_timestamp_seconds" in text


def test_a_client_of_tls_1_1_is_turned_away(server, authority):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(authority.ca_file)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1

    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)) as refused,
    ):
        old.wrap_socket(raw, server_hostname="127.0.0.1")

    assert "NO_PROTOCOLS_AVAILABLE" not in str(refused.value)  # otherwise this client could not even ask
