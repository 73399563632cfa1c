"""Credentials of a role, given out as by EKS and ECS (`pod`) and by EC2 (`instance`)."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


@contextmanager
def role_credentials(kind, monkeypatch, folder):
    """Serve a role's credentials, which last 5 s; yields what holds the `key` that is given out."""
    given = SimpleNamespace(key="key")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each body waits 40 ms for the acknowledgment of its headers

        def answer(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            ends_at = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
            facts = {"AccessKeyId": given.key, "SecretAccessKey": "secret", "Expiration": ends_at}
            named = json.dumps(facts | {"Token": "token", "Code": "Success"})
            self.answer_with(
                {
                    "pod": named if self.headers["authorization"] == "of_the_pod" else None,
                    "instance": {"api/token": "session", "security-credentials/": "role"}.get(
                        self.path.removeprefix("/latest/").removeprefix("meta-data/iam/"), named
                    ),
                }[kind]
            )

        def answer_with(self, text):
            self.send_response(403 if text is None else 200)
            self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            self.send_header("content-length", str(len(text or "")))
            self.end_headers()
            self.wfile.write((text or "").encode())

        do_GET = do_PUT = answer  # noqa: N815 - the names that the base looks for

        def log_message(self, *arguments):
            pass

    (folder / "token").write_text("of_the_pod")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "pod": {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{address}/",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "token"),
        },
        # object_store and the SDK that deltalake has name it differently; both know where it is in EC2.
        "instance": {"AWS_METADATA_ENDPOINT": address, "AWS_EC2_METADATA_SERVICE_ENDPOINT": address},
    }[kind].items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    yield given
    server.shutdown()
    thread.join()
    server.server_close()
