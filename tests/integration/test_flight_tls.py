"""The server speaks TLS with a certificate from files, and says which file it cannot use."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import urllib.request
from typing import TYPE_CHECKING

import pyarrow.flight
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.server import FlightServerSettings, HttpEndpoint, ServerThread
from micromegas_jupyter.server.settings import TlsFiles
from tests.fakes.servers import NUMBERS, build_pool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def _write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flight test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "server.pem", folder / "server.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def _server(certificate_file: Path, key_file: Path) -> ServerThread:
    settings = FlightServerSettings(port=0, certificate_file=certificate_file, key_file=key_file)
    return ServerThread(pool=build_pool(), validator=None, settings=settings)


def test_a_client_that_trusts_the_certificate_is_served(tmp_path: Path) -> None:
    certificate_file, key_file = _write_certificate(tmp_path)
    server = _server(certificate_file, key_file)
    server.start()

    with pyarrow.flight.connect(server.uri, tls_root_certs=certificate_file.read_bytes()) as client:
        table = client.do_get(pyarrow.flight.Ticket(statement_ticket(NUMBERS))).read_all()
    server.stop()

    assert server.uri.startswith("grpc+tls://127.0.0.1:")
    assert table["n"].to_pylist() == [1, 2, 3]


def test_an_authority_that_is_trusted_besides_the_usual_ones_is_enough_for_our_client(tmp_path: Path) -> None:
    certificate_file, key_file = _write_certificate(tmp_path)
    server = _server(certificate_file, key_file)
    server.start()

    with FlightSQLClient(server.uri, extra_ca_bundle=certificate_file) as client:
        frame = client.query(NUMBERS)
    with FlightSQLClient(server.uri) as client, pytest.raises(ServerUnavailable):
        client.query(NUMBERS)
    server.stop()

    assert frame["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("missing", ["certificate_file", "key_file"])
def test_a_file_that_cannot_be_read_is_named_by_its_setting(tmp_path: Path, missing: str) -> None:
    files = dict(zip(("certificate_file", "key_file"), _write_certificate(tmp_path), strict=True))
    files[missing] = tmp_path / "absent"

    with pytest.raises(ConfigurationError) as caught:
        _server(**files).start()

    assert caught.value.key == missing
    assert str(tmp_path) not in str(caught.value)


def test_files_that_are_no_certificate_do_not_start_a_server(tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_text("not a certificate")
    (tmp_path / "server.key").write_text("not a key")

    with pytest.raises(ConfigurationError):
        _server(tmp_path / "server.pem", tmp_path / "server.key").start()


def test_the_http_endpoint_speaks_tls_and_those_who_never_shake_hands_keep_nobody_out(tmp_path: Path) -> None:
    certificate_file, key_file = _write_certificate(tmp_path)
    endpoint = HttpEndpoint(
        "127.0.0.1",
        0,
        validator=None,
        registries=[],
        readiness=lambda: None,
        tls_files=TlsFiles(certificate_file=certificate_file, key_file=key_file),
    )
    port = endpoint.start()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(60)]
    trust = ssl.create_default_context(cafile=str(certificate_file))

    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/health", timeout=60, context=trust) as answer:
            body = answer.read()
    finally:
        for connection in idle:
            connection.close()
        endpoint.stop()

    assert body == b"OK\n"
