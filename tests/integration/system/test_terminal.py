"""What the command's edges do: exit codes, messages, settings that cannot be read."""

import json
import os
import signal
import subprocess
import sys

import pytest

from micromegas_jupyter.cli.main import run as run_command
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

KEYS = '[{"name": "ci", "key": "a-key-for-this-test-only"}]'
MALFORMED = [
    ("MICROMEGAS_ADMINS", '["alice@example.com"'),
    ("MICROMEGAS_OIDC_CONFIG", '{"issuers": [{"issuer": "http://id.example.com", "audience": "a"}]}'),
    ("MICROMEGAS_OIDC_CONFIG", '{"issuers": [], "issuers": [{"issuer": "https://id.example.com", "audience": "a"}]}'),
    ("MICROMEGAS_API_KEYS", "secret-in-the-wrong-place"),
    ("MICROMEGAS_API_KEYS", '[{"name": "a", "key": "k"}, {"name": "b", "key": "k"}]'),
]


@pytest.fixture
def environ(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MICROMEGAS_")}
    own = {"MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"), "MICROMEGAS_API_KEYS": KEYS}
    return {**kept, **own}


@pytest.fixture
def run_here(environ, monkeypatch, capsys):
    """Run the command in this process and return its exit code and what it writes."""

    def run(*words, **more):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("MICROMEGAS_")]:
                patch.delenv(name)
            for name, value in {**environ, **more}.items():
                patch.setenv(name, value)
            try:
                code = run_command(words)
            except SystemExit as exiting:
                code = exiting.code
        output, errors = capsys.readouterr()
        assert "Traceback" not in errors
        return code, output, errors

    return run


@pytest.fixture
def serve_here(run_here, tmp_path):
    """Return what `micromegas serve` writes to standard error in this process, with exit code 2."""

    def run(*options, **more):
        code, output, errors = run_here("serve", "--port", "0", "--lake", str(tmp_path / "lake"), *options, **more)
        assert (code, output) == (2, "")
        return errors

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, lake=folder / "lake", keys={}, variables={"MICROMEGAS_API_KEYS": KEYS}) as running:
        yield running


@pytest.mark.parametrize(("key", "value"), MALFORMED)
def test_a_server_with_a_malformed_setting_does_not_start(serve_here, key, value):
    errors = serve_here(**{key: value})

    assert key in errors
    assert "CONF001" in errors
    assert "secret-in-the-wrong-place" not in errors


def test_a_server_with_nothing_configured_does_not_start(serve_here, environ):
    del environ["MICROMEGAS_API_KEYS"]

    assert "MICROMEGAS_OIDC_CONFIG" in serve_here()


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--disable-auth"], ["--http-host", "0.0.0.0"]]
)
def test_a_server_is_not_exposed_without_saying_so(serve_here, options):
    assert "--insecure" in serve_here(*options)


def test_serve_prints_its_ready_line_answers_and_stops_on_sigterm(micromegas, environ, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--ready-json", "--disable_auth",
         "--lake", str(tmp_path / "lake")],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        ready = json.loads(process.stdout.readline())
        result = micromegas("query", "SELECT 1 AS one", "--uri", ready["uri"], environ=environ)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)

    assert set(ready) == {"uri", "issuer", "client_id", "http"}
    assert result.stdout.split() == ["one", "-----", "1"]
    assert process.returncode == 0, errors


def test_a_configuration_is_checked_without_serving(micromegas, run_here, serve_here, environ, tmp_path):
    roles = {"reader": {"tables": {"log_entries": "nothing = 1"}}}
    (tmp_path / "access.json").write_text(json.dumps({"roles": roles}))
    check = ("serve", "--check-config", "--lake", str(tmp_path / "lake"))

    valid = micromegas(*check, environ=environ)
    wrong = serve_here("--check-config", "--access-config", str(tmp_path / "access.json"))
    away = {"issuers": [{"issuer": "http://127.0.0.1:1", "audience": "lake"}]}
    doubtful = {"MICROMEGAS_OIDC_CONFIG": json.dumps(away), "MICROMEGAS_SERVER_MAX_QUERYS": "1"}
    silent, printed, warnings = run_here(*check, **doubtful)
    elsewhere = serve_here("--check-config", "--host", "192.0.2.1", "--insecure")

    assert (valid.returncode, valid.stdout.splitlines()[0]) == (0, "The configuration is valid."), valid.stderr
    assert not (tmp_path / "lake").exists()
    assert "nothing" in wrong
    assert (silent, "127.0.0.1:1" in printed) == (0, True)
    assert "warning: The identity provider 127.0.0.1:1 " in warnings
    assert "Did you mean MICROMEGAS_SERVER_MAX_QUERIES?" in warnings
    assert "warning" not in valid.stderr.lower()
    assert "Cannot bind to 192.0.2.1:" in elsewhere
    assert "port" not in elsewhere


@pytest.fixture
def key_file(server, tmp_path):
    """The API key file of the profile `robot`, whose server has that key."""
    (tmp_path / "config").mkdir()
    path = tmp_path / "robot.key"
    path.write_text("a-key-for-this-test-only\n")
    profiles = {"profiles": {"robot": {"uri": server.uri, "api_key_file": str(path)}}}
    (tmp_path / "config/config.json").write_text(json.dumps(profiles))
    return path


def test_an_api_key_file_in_a_profile_is_used(run_here, key_file):
    accepted, account, notes = run_here("whoami", "--profile", "robot")
    answered, _, more_notes = run_here("query", "SELECT 1", "--profile", "robot")
    key_file.write_text("another-key-that-nobody-knows")
    refused, _, errors = run_here("query", "SELECT 1", "--profile", "robot")

    assert (accepted, answered, refused) == (0, 0, 3)
    assert account.startswith("API key from robot.key\nserver 127.0.0.1:")
    assert "knows you as ci" in account
    # The key is one in plain text.
    assert [one.count("note: ") for one in (notes, more_notes)] == [1, 1]
    assert "AUTH010" in errors


@pytest.mark.usefixtures("key_file")
def test_a_bad_statement_leaves_with_1_and_points_at_the_place(environ, micromegas):
    result = micromegas("query", "SELECT tagret FROM log_entries", "--profile", "robot", environ=environ)

    assert result.returncode == 1
    assert "SQL001" in result.stderr
    assert "tagret" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_server_that_is_not_there_leaves_with_4(run_here):
    code, _, errors = run_here("query", "SELECT 1", "--uri", "grpc://127.0.0.1:1")

    assert code == 4
    assert "AVAIL003" in errors


def test_a_command_that_cannot_be_understood_leaves_with_2(environ, micromegas):
    result = micromegas("query", "SELECT 1", "--begin", "1hx", environ=environ)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [["query"], ["query", "SELECT 1", "--end", "1h"], ["nonsense"], []])
def test_words_that_cannot_be_understood_leave_with_2(run_here, words):
    code, output, _ = run_here(*words)

    assert (code, output) == (2, "")


@pytest.mark.slow
def test_the_demo_check_needs_no_person_and_no_browser(micromegas, environ):
    del environ["MICROMEGAS_API_KEYS"]

    result = micromegas("demo", "--check", environ=environ)

    assert result.returncode == 0, result.stderr
    assert "signed in as Alice Martin <alice@example.com>" in result.stderr
    log_lines, measures, processes = (text.splitlines() for text in result.stdout.strip().split("\n\n"))
    assert log_lines[0].split() == ["time", "level", "target", "msg"]
    assert 2 < len(log_lines) <= 2 + 5  # as many as there are by then
    assert len(measures) > 2
    assert processes[2].startswith("micromegas demo ")
    assert "Closing acceptor" not in result.stderr
