"""With authorities for clients, who shows no certificate is not heard, and the token is asked for all the same."""

import http.client
import ssl
from types import SimpleNamespace

import pyarrow.flight
import pytest

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.errors import ConfigurationError, ServerUnavailable, UsageError
from micromegas_jupyter.flightsql.commands import statement_ticket
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.wiring.client_side import connect
from tests.fakes.certificates import Authority
from tests.fakes.servers import NUMBERS, open_server
from tests.fakes.validator import FakeValidator

pytestmark = pytest.mark.integration

TIMEOUT_SECONDS = 60.0
ALICE = [(b"authorization", b"Bearer alice")]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server that wants certificates of `clients`, and an HTTP endpoint that does so, too."""
    folder = tmp_path_factory.mktemp("tls")
    authority, clients, strangers = (Authority(folder, name) for name in ("servers", "clients", "strangers"))
    own = authority.issue("server")
    files = TlsFiles(certificate_file=own.certificate_file, key_file=own.key_file, client_ca_file=clients.ca_file)
    endpoint = HttpEndpoint(
        "127.0.0.1", 0, validator=FakeValidator(), registries=[], readiness=lambda: None, tls_files=files
    )
    port = endpoint.start()
    good, foreign = clients.issue("good"), strangers.issue("foreign")
    good.key_file.chmod(0o600)
    with open_server(tls_files=files) as server:
        yield SimpleNamespace(
            server=server, http_port=port, authority=authority, good=good, foreign=foreign, nobody=None
        )
    endpoint.stop()


def _query(served, pair, headers):
    options = {"tls_root_certs": served.authority.ca_file.read_bytes()}
    if pair is not None:
        options |= {"cert_chain": pair.certificate_file.read_bytes(), "private_key": pair.key_file.read_bytes()}
    with pyarrow.flight.connect(served.server.uri, **options) as client:
        call = pyarrow.flight.FlightCallOptions(timeout=TIMEOUT_SECONDS, headers=headers)
        table = client.do_get(pyarrow.flight.Ticket(statement_ticket(NUMBERS)), call).read_all()
    return table["n"].to_pylist()


def test_a_client_with_certificate_and_token_is_served(served):
    assert _query(served, served.good, ALICE) == [1, 2, 3]


def test_a_certificate_stands_for_no_token(served):
    with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
        _query(served, served.good, [])


@pytest.mark.parametrize("which", ["nobody", "foreign"])
def test_a_token_stands_for_no_certificate(served, which):
    with pytest.raises(pyarrow.flight.FlightUnavailableError):
        _query(served, getattr(served, which), ALICE)


def _connect(served, tmp_path, key_file):
    variables = {
        "MICROMEGAS_ANALYTICS_URI": served.server.uri,
        "MICROMEGAS_CONFIG_DIR": str(tmp_path),
        "MICROMEGAS_CA_BUNDLE": str(served.authority.ca_file),
        "MICROMEGAS_CLIENT_CERTIFICATE_FILE": str(served.good.certificate_file),
        "MICROMEGAS_CLIENT_KEY_FILE": str(key_file),
    }
    return connect(auth_provider=StaticTokenAuthProvider("alice"), environ=variables)


def test_our_client_shows_the_certificate_that_its_settings_name(served, tmp_path):
    with _connect(served, tmp_path, served.good.key_file) as client:
        frame = client.query(NUMBERS)

    assert frame["n"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("scheme", "shown", "what", "remedy"),
    [
        ("grpc", "none", "it probably requires TLS", "grpc+tls://"),
        ("grpc+tls", "none", "requires a client certificate, but none is configured", "_CLIENT_CERTIFICATE_FILE"),
        ("grpc+tls", "foreign", "does not accept the client certificate", "--tls-client-ca"),
    ],
)
def test_our_client_says_what_the_server_probably_wants(served, scheme, shown, what, remedy):
    pair = served.foreign if shown == "foreign" else None
    client = FlightSQLClient(
        served.server.uri.replace("grpc+tls", scheme),
        auth_provider=StaticTokenAuthProvider("alice"),
        ca_bundle=str(served.authority.ca_file),
        client_certificate_file=None if pair is None else str(pair.certificate_file),
        client_key_file=None if pair is None else str(pair.key_file),
    )

    with client, pytest.raises(ServerUnavailable) as caught:
        client.query(NUMBERS)

    assert what in caught.value.what
    assert remedy in caught.value.remedy


def test_a_key_that_others_can_read_is_not_used(served, tmp_path):
    key_file = tmp_path / "open.key"
    key_file.write_bytes(served.good.key_file.read_bytes())
    key_file.chmod(0o644)

    with pytest.raises(ConfigurationError) as caught:
        _connect(served, tmp_path, key_file)

    assert caught.value.key == "MICROMEGAS_CLIENT_KEY_FILE"


@pytest.mark.parametrize("of_other", [None, "foreign"])
def test_a_certificate_without_its_key_is_refused_at_once(served, of_other):
    files = {"client_certificate_file": served.good.certificate_file}

    with pytest.raises(UsageError):
        FlightSQLClient(served.server.uri, **files, client_key_file=of_other and served.foreign.key_file)


@pytest.mark.parametrize(
    ("path", "has_certificate", "status"),
    [("/health", False, 200), ("/ready", False, 200), ("/metrics", False, 403), ("/metrics", True, 200)],
)
def test_over_http_the_metrics_need_a_certificate_and_probes_do_not(served, path, has_certificate, status):
    assert _request_status(served, path, served.good if has_certificate else None) == status


def test_over_http_a_certificate_of_strangers_is_refused(served):
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        _request_status(served, "/health", served.foreign)


def _request_status(served, path, pair):
    context = ssl.create_default_context(cafile=str(served.authority.ca_file))
    if pair is not None:
        context.load_cert_chain(pair.certificate_file, pair.key_file)
    connection = http.client.HTTPSConnection("127.0.0.1", served.http_port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", path, headers={"Authorization": "Bearer alice"})
        return connection.getresponse().status
    finally:
        connection.close()
