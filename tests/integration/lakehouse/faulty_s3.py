"""An S3 that fails as it is told: a proxy in front of moto's server, each in a process or thread of its own."""

import http.client
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# moto answers each request on a thread of its own, and looks at the object before it writes: of several conditional
# writes at once more than one succeeds (up to one round of ten, when threads are switched often). S3's are atomic.
_MOTO = """
import logging, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

answer, writing = DomainDispatcherApplication.__call__, threading.Lock()

def answer_in_turn(self, environ, start_response):
    if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
        return answer(self, environ, start_response)
    with writing:
        return answer(self, environ, start_response)

DomainDispatcherApplication.__call__ = answer_in_turn
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
BUCKET = "lake"
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@contextmanager
def moto_server():
    """Run moto's S3 with a bucket, in a process of its own: some calls of deltalake keep this one's threads waiting."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        port = int(process.stdout.readline())
        _request(port, "PUT", f"/{BUCKET}", {}, b"")
        yield port
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def environ_of(port):
    """Return the variables by which a process finds the S3 on a port."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def _request(port, method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class FaultyS3:
    """Forwards requests but for those that `fault` names: it maps method and path to a fault, or None.

    Faults: a status that is answered in place of moto's; `close`; `hang`; `applied 500` and `applied close`, after moto
    has done what was asked. What is signed with another than the `valid_key` gets the answer to an expired token.
    """

    def __init__(self, moto_port):
        self.fault = lambda method, path: None
        self.valid_key = "key"
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each body waits 40 ms for the acknowledgment of its headers

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                key = self.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
                fault = "expired" if key != outer.valid_key else outer.fault(self.command, self.path)
                status, headers, content = 503, [], b""
                if fault is None or str(fault).startswith("applied"):
                    status, headers, content = _request(moto_port, self.command, self.path, dict(self.headers), body)
                if fault == "hang":
                    outer.released.wait(60)
                if fault in {"close", "applied close", "hang"}:
                    self.close_connection = True
                    return
                if fault == "expired":
                    status, headers, content = 400, [], _EXPIRED
                elif fault is not None:
                    status, headers, content = (500 if fault == "applied 500" else fault), [], b""
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in {"connection", "transfer-encoding", "date", "server", "content-length"}:
                        self.send_header(name, value)
                length = next((value for name, value in headers if name.lower() == "content-length"), len(content))
                self.send_header("content-length", length if self.command == "HEAD" else len(content))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - the names that the base looks for

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.environ = environ_of(self._server.server_port)

    def close(self):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
