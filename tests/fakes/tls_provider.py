"""One JSON document over TLS, under a certificate of an authority made for this test."""

import ssl

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.certificates import Authority
from tests.fakes.loopback_http import LoopbackServer, Reply

OTHER_HOST = "127.1"


class TlsProvider:
    """A context manager that serves `{"tls": true}` at `url`; `ca_file` is whom to trust.

    `host` is this machine; `OTHER_HOST` is a way to write it that the package takes for another machine.
    """

    def __init__(self, folder, *, host="127.0.0.1"):
        context, self.ca_file = server_context(folder, host=host)
        self._server = LoopbackServer(self)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{host}:{self._server.server_address[1]}/document"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_error):
        self._server.stop()

    def now(self):
        return SYSTEM_CLOCK.now()

    def handle(self, _seen):
        return Reply(body={"tls": True})


def server_context(folder, *, host):
    """Return how a server of this name uses its certificate, and the file of the authority that vouches for it."""
    authority = Authority(folder, f"authority of {host}")
    pair = authority.issue("server", host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate_file, pair.key_file)
    return context, authority.ca_file
