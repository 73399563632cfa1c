"""From signing in to the first row of a user's own program: `micromegas telemetry setup`, a real SDK, the demo."""

import json
import re
import subprocess
import sys

import pyarrow as pa
import pytest

from micromegas_jupyter import connect
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import PermissionDenied, Rejected
from tests.fakes.terminal import make_browser

pytestmark = pytest.mark.integration

SQL = """
SELECT jsonb_as_string(jsonb_get(properties, 'gen_ai.request.model')) AS model FROM otel_spans
WHERE name = 'chat my-model'
"""
SHOW = "import os; print({name: value for name, value in os.environ.items() if name.startswith('OTEL_EXPORTER')})"


@pytest.fixture
def newcomer(person):
    """The environment of a user who has not signed in, without variables for exporters."""
    return {name: value for name, value in person.items() if not name.startswith("OTEL_")}


@pytest.fixture
def bob(newcomer, sign_in):
    """A user who is not an administrator, signed in."""
    sign_in(newcomer, "bob")
    return newcomer


def test_a_users_program_sends_its_first_row_within_a_minute_of_the_sign_in(stack, newcomer, micromegas, tmp_path):
    bob = {**newcomer, "BROWSER": make_browser(tmp_path / "browser", "bob")}
    began_at = SYSTEM_CLOCK.monotonic()
    signed_in = micromegas("login", "--flow", "browser", environ=bob)
    made = micromegas("telemetry", "setup", "--name", "laptop", "--format", "python", environ=bob)
    program = tmp_path / "agent.py"
    program.write_text(made.stdout)
    sent = subprocess.run([sys.executable, program], env=bob, capture_output=True, text=True, timeout=60, check=False)
    found = micromegas("query", SQL, "--format", "json", environ=bob)

    seconds = SYSTEM_CLOCK.monotonic() - began_at
    assert signed_in.stdout.startswith("Signed in as Bob"), signed_in.stderr
    assert (sent.returncode, sent.stderr) == (0, "")
    assert json.loads(found.stdout) == [{"model": "my-model"}]
    assert seconds < 60
    print(f"first row after {seconds:.1f} s")

    token = re.search(r"Bearer%20(\S+)\"", made.stdout)[1]
    with connect(stack.server.uri, auth_provider=StaticTokenAuthProvider(token)) as sender:
        for forbidden in (lambda: sender.query("SELECT 1"), lambda: sender.bulk_ingest("mine", pa.table({"a": [1]}))):
            with pytest.raises(PermissionDenied):
                forbidden()
        listed = micromegas("telemetry", "keys", environ=bob).stdout
        key_id, name = re.search(r"(?m)^(\w{8}) +(\S+) +valid ", listed).groups()
        assert name == "bob@example.com/laptop"
        assert token not in listed
        assert micromegas("telemetry", "revoke", key_id, environ=bob).returncode == 0
        with pytest.raises(Rejected):
            sender.whoami()
    assert micromegas("telemetry", "revoke", "ffffffff", environ=bob).returncode == 2


def test_a_program_runs_with_a_key_that_ends_with_it(stack, bob, micromegas_here, micromegas):
    shown = micromegas("telemetry", "setup", "--", sys.executable, "-c", SHOW, environ=bob)

    assert "'OTEL_EXPORTER_OTLP_PROTOCOL': 'grpc'" in shown.stdout
    assert f"'OTEL_EXPORTER_OTLP_ENDPOINT': '{stack.server.uri.replace('grpc', 'http', 1)}'" in shown.stdout
    assert "mmk_" in shown.stdout
    assert " valid " not in micromegas_here("telemetry", "keys", environ=bob).stdout
    missing = micromegas_here("telemetry", "setup", "--", "no-such-program", environ=bob)
    assert (missing.returncode, " valid " in micromegas_here("telemetry", "keys", environ=bob).stdout) == (2, False)


@pytest.mark.parametrize(
    ("file_format", "line"),
    [
        ("sh", "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ("powershell", "$env:OTEL_EXPORTER_OTLP_PROTOCOL = 'http/protobuf'"),
        ("dotenv", 'OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"'),
    ],
)
def test_variables_are_printed_for_shells_and_files(stack, bob, micromegas_here, file_format, line):
    made = micromegas_here("telemetry", "setup", "--format", file_format, "--http", stack.server.http_url, environ=bob)

    assert line in made.stdout.splitlines()
    assert stack.server.http_url in made.stdout
    key_id = re.search(r"revoke (\w{8})", made.stderr)[1]
    assert micromegas_here("telemetry", "revoke", key_id, environ=bob).returncode == 0
