"""How many files seven common tasks of signed-in users execute; docs/architecture.md lists these files."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

import micromegas_jupyter
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.otlp.exchange import Signal
from tests.architecture.guide_text import ROOT, read_page
from tests.fakes.loopback_http import LoopbackHttp, Reply
from tests.fakes.mint import AUDIENCE, mint, rsa_key
from tests.fakes.servers import open_server
from tests.integration.notebook.kernels import attended_kernel
from tests.integration.otlp.exporting import any_value, export
from tests.integration.relay.servers import SignIn, jupyter_server, kernel_environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TRACING = Path(__file__).parent / "tracing"
# What docs/architecture.md calls each flow, and the most files that it may have.
FLOWS = {
    "sign-in by redirect": ("Sign-in by redirect", 26),
    "%%sql": ("`%%sql` to a displayed table", 24),
    "micromegas query": ("`micromegas query`", 16),
    "token check": ("Token check", 12),
    "query": ("Query on the server", 37),
    "export": ("OTLP to commit", 30),
    "engine": ("Query on another engine", 31),
}


def run_traced(folder, *arguments, environ):
    own = {**os.environ, **environ, "MICROMEGAS_TEST_TRACE": str(folder), "PYTHONPATH": f"{TRACING}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, *arguments], env=own, check=True, timeout=120, stdin=subprocess.DEVNULL)


def traced_files(folder):
    return sorted({name for path in folder.glob("*.txt") for name in path.read_text(encoding="utf-8").split()})


def check_flow(flow, files):
    """Check that these files are documented, and no more than a reader is to open; a retry may leave one out.

    Those of `engine` and `lake` count, and are not listed.
    """
    title, limit = FLOWS[flow]
    print(f"{flow}: {len(files)} files (at most {limit})", *files, sep="\n  ")
    parts = re.split(r"^#{2,3} ", read_page("architecture.md"), flags=re.MULTILINE)
    section = next(part for part in parts if part.startswith(f"{title}\n"))
    documented = set(re.findall(r"`([a-z_/]+\.py)`", section))
    assert sorted(name for name in set(files) - documented if not name.startswith(("engine/", "lake/"))) == []
    assert len(documented - set(files)) <= 2
    assert len(files) <= limit


@contextmanager
def traced_server(folder, *, lake="", engine=""):
    """Run a server in another process, and yield its port and what begins to count files; it ends with the body."""
    environ = {
        **os.environ,
        "MICROMEGAS_TEST_TRACE": str(folder),
        "LC_MICROMEGAS_TEST_TRACE": str(folder),
        "PYTHONPATH": f"{TRACING}{os.pathsep}{ROOT}",
    }
    command = [sys.executable, str(TRACING / "traced_server.py"), str(lake), engine]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environ, text=True, **pipes) as server:

        def begin():
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.stdout.readline() == "traced\n"

        yield int(server.stdout.readline()), begin
        server.stdin.write("end\n")
        server.stdin.flush()
    assert server.returncode == 0


class KeyServer(LoopbackHttp):
    """An issuer that serves its discovery document and its keys, and no more."""

    def handle(self, seen):
        documents = {
            "/.well-known/openid-configuration": {"issuer": self.base, "jwks_uri": f"{self.base}/keys"},
            "/keys": {"keys": [rsa_key().jwk()]},
        }
        return Reply(body=documents[seen.path])


_TOKEN_CHECK = """
import os, sitecustomize
from micromegas_jupyter.access import validator_from_environment
validator = validator_from_environment(os.environ)
sitecustomize.start()
assert validator.validate_token(os.environ["TOKEN"]).subject == "alice"
sitecustomize.write()
"""


@pytest.fixture
def signed_in(tmp_path):
    """Variables of a user with a stored sign-in and a server that accepts any token."""
    folder, issuer = tmp_path / "config", "http://127.0.0.1:1"
    now = int(SYSTEM_CLOCK.now().timestamp())
    token = {
        "access_token": "opaque",
        "refresh_token": "opaque",
        "id_token": mint(issuer=issuer, audience="notebook", iat=now, exp=now + 3600),
        "expires_at": now + 3600,
    }
    folder.mkdir(mode=0o700)
    (folder / "tokens.json").write_text(json.dumps({"issuer": issuer, "client_id": "notebook", "token": token}))
    with open_server(is_open=True) as server:
        yield {
            "MICROMEGAS_ANALYTICS_URI": f"grpc://127.0.0.1:{server.port}",
            "MICROMEGAS_CONFIG_DIR": str(folder),
            "MICROMEGAS_OIDC_ISSUER": issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": "notebook",
        }


def test_a_token_check(tmp_path):
    with KeyServer() as issuer:
        now = int(SYSTEM_CLOCK.now().timestamp())
        config = json.dumps({"issuers": [{"issuer": issuer.base, "audience": AUDIENCE}]})
        token = mint(issuer=issuer.base, iat=now, exp=now + 300)
        run_traced(tmp_path, "-c", _TOKEN_CHECK, environ={"MICROMEGAS_OIDC_CONFIG": config, "TOKEN": token})

    check_flow("token check", traced_files(tmp_path))


def test_a_query_in_a_terminal(signed_in, tmp_path):
    environ = {**signed_in, "MICROMEGAS_TEST_TRACE_START": "1"}
    run_traced(tmp_path, "-m", "micromegas_jupyter.cli", "query", "SELECT 1 AS a", environ=environ)

    check_flow("micromegas query", traced_files(tmp_path))


def test_a_cell_with_sql(signed_in, tmp_path):
    traced = {"MICROMEGAS_TEST_TRACE": str(tmp_path), "PYTHONPATH": f"{TRACING}{os.pathsep}{ROOT}"}
    with attended_kernel({**signed_in, **traced}) as kernel:
        kernel.run("%load_ext micromegas_jupyter")
        kernel.run(_AFTER_LOADING)
        assert kernel.run("%%sql\nSELECT 1 AS a").reply["status"] == "ok"
        kernel.run("sitecustomize.write()")

    check_flow("%%sql", traced_files(tmp_path))


# Loading fetches the tables for completions on other threads, one of which starts the other.
_AFTER_LOADING = """
import sitecustomize, threading
for _ in range(2):
    for thread in threading.enumerate():
        if thread.name.endswith("schema"):
            thread.join(30)
sitecustomize.start()
"""


def test_a_sign_in_by_redirect(tmp_path):
    with DemoProvider() as provider:
        environ = kernel_environment(tmp_path, issuer=provider.issuer, client_id=provider.client_id) | {
            "MICROMEGAS_TEST_TRACE": str(tmp_path),
            "MICROMEGAS_TEST_TRACE_START": "1",
            "PYTHONPATH": f"{TRACING}{os.pathsep}{ROOT}",
        }
        with jupyter_server(tmp_path, environ=environ) as server, server.kernel() as kernel:
            kernel.run(_AFTER_LOADING)
            sign_in = SignIn(kernel, logs_out_first=False)
            assert "Signed in as" in sign_in.come_back(sign_in.answer())
            kernel.wait_until_saved("Signed in as")
            kernel.run("sitecustomize.write()")

    check_flow("sign-in by redirect", traced_files(tmp_path))


def query(port, sql):
    provider = StaticTokenAuthProvider("alice")
    with micromegas_jupyter.connect(f"grpc://127.0.0.1:{port}", auth_provider=provider) as client:
        assert client.query_arrow(sql).num_rows == 1


def test_a_statement_on_the_server(tmp_path):
    with traced_server(tmp_path) as (port, begin):
        begin()
        query(port, "SELECT 1 AS a")

    check_flow("query", traced_files(tmp_path))


def test_a_statement_for_another_engine(tmp_path):
    with open_server(is_open=True) as engine, traced_server(tmp_path, engine=engine.uri) as (port, begin):
        query(port, "SELECT 1 AS a")  # it connects to the engine
        begin()
        query(port, "SELECT 2 AS a")

    check_flow("engine", traced_files(tmp_path))


def test_an_export_that_is_committed(tmp_path):
    (lake := tmp_path / "lake").mkdir(mode=0o700)
    with traced_server(tmp_path, lake=lake) as (port, begin), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        send = channel.unary_unary(Signal.LOGS.method)
        for text in ("one", "two"):  # the first starts the process that stores them
            begin()
            body = export(Signal.LOGS, LogRecord(body=any_value(text))).SerializeToString()
            send(body, metadata=[("authorization", "Bearer collector")])

    check_flow("export", traced_files(tmp_path))
