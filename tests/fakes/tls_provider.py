"""One JSON document over TLS, under a certificate of an authority made for this test."""

import ssl

from tests.fakes.certificates import Authority
from tests.fakes.loopback_http import LoopbackHttp, Reply

OTHER_HOST = "127.1"


class TlsProvider(LoopbackHttp):
    """A context manager that serves `{"tls": true}` at `url`; `ca_file` is whom to trust.

    `host` is this machine; `OTHER_HOST` is a way to write it that the package takes for another machine.
    """

    def __init__(self, folder, *, host="127.0.0.1"):
        super().__init__()
        context, self.ca_file = server_context(folder, host=host)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{host}:{self._server.server_address[1]}/document"

    def handle(self, _seen):
        return Reply(body={"tls": True})


def server_context(folder, *, host):
    """Return how a server of this name uses its certificate, and the file of the authority that vouches for it."""
    authority = Authority(folder, f"authority of {host}")
    pair = authority.issue("server", host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate_file, pair.key_file)
    return context, authority.ca_file
