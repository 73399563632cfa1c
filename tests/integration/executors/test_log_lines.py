"""A server's JSON log holds its own objects only, whatever strangers send, and says what was read again."""

import json
import signal
import socket
import urllib.parse
from contextlib import suppress

import pytest

from tests.fakes.certificates import Authority
from tests.integration.executors.server_process import DEADLINE_SECONDS, ServerProcess, wait_until

pytestmark = pytest.mark.integration


def _lines(server):
    """Return what is written; a line without its end is being written."""
    text = server.log_file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server over TLS, with keys in a file."""
    folder = tmp_path_factory.mktemp("logs")
    authority = Authority(folder)
    pair = authority.issue("server")
    keys = folder / "keys.json"
    keys.write_text(json.dumps([{"name": "ann", "sha256": "0" * 64}]))
    keys.chmod(0o600)
    options = ("--log-format", "json", "--log-level", "debug", "--api-key-file", str(keys))
    tls = ("--tls-certificate", str(pair.certificate_file), "--tls-key", str(pair.key_file))
    more = (*options, *tls, "--tls-client-ca", str(authority.ca_file))
    variables = {"MICROMEGAS_SERVER_MAX_ROWS": "1000"}  # any: without, there would be no authentication
    with ServerProcess(folder / "server", lake=folder / "lake", keys={}, options=more, variables=variables) as server:
        yield server


@pytest.mark.parametrize("port", ["uri", "http"])
def test_connections_without_tls_leave_no_line_that_is_not_json(server, port):
    where = urllib.parse.urlsplit(server.ready[port])
    with socket.create_connection((where.hostname, where.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionError):  # it may be reset, which is an end as well
            while connection.recv(4096):
                pass

    assert all(line["logger"].startswith("micromegas_jupyter") for line in _lines(server))


def test_a_hang_up_has_the_configuration_read_again(server):
    message = "The access configuration was read again and is in force."

    server.front.send_signal(signal.SIGHUP)

    wait_until(lambda: message in {line.get("message") for line in _lines(server)}, "a reload")
