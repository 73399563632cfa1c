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

MALFORMED = [
    ("MICROMEGAS_ADMINS", '["alice@example.com"'),
    ("MICROMEGAS_OIDC_CONFIG", '{"issuers": [{"issuer": "http://id.example.com", "audience": "a"}]}'),
    ("MICROMEGAS_OIDC_CONFIG", '{"issuers": [], "issuers": [{"issuer": "https://id.example.com", "audience": "a"}]}'),
    ("MICROMEGAS_API_KEYS", "secret-in-the-wrong-place"),
    ("MICROMEGAS_API_KEYS", '[{"name": "a", "key": "k"}, {"name": "b", "key": "k"}]'),
]


@pytest.fixture
def environ(person):
    return {
        **{name: value for name, value in person.items() if not name.startswith("MICROMEGAS_")},
        "MICROMEGAS_API_KEYS": '[{"name": "ci", "key": "a-key-for-this-test-only"}]',
    }


@pytest.fixture
def serve_here(environ, tmp_path, monkeypatch, capsys):
    """Return what `micromegas serve` writes to standard error in this process, with exit code 2, in an environment."""

    def run(*options, **more):
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("MICROMEGAS_")]:
                patch.delenv(name)
            for name, value in {**environ, **more}.items():
                patch.setenv(name, value)
            assert run_command(["serve", "--port", "0", "--lake", str(tmp_path / "lake"), *options]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert "Traceback" not in errors
        return errors

    return run


@pytest.mark.parametrize(("key", "value"), MALFORMED)
def test_a_server_with_a_malformed_setting_does_not_start(serve_here, key, value):
    errors = serve_here(**{key: value})

    assert key in errors
    assert "CONF001" in errors
    assert "secret-in-the-wrong-place" not in errors


def test_a_server_with_nothing_configured_does_not_start(micromegas, environ, tmp_path):
    del environ["MICROMEGAS_API_KEYS"]

    result = micromegas("serve", "--port", "0", "--lake", str(tmp_path / "lake"), environ=environ)

    assert result.returncode == 2
    assert "MICROMEGAS_OIDC_CONFIG" in result.stderr


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


def test_a_configuration_is_checked_without_serving(micromegas, environ, tmp_path):
    roles = {"reader": {"tables": {"log_entries": "nothing = 1"}}}
    (tmp_path / "access.json").write_text(json.dumps({"roles": roles}))
    lake = ("--lake", str(tmp_path / "lake"))

    valid = micromegas("serve", "--check-config", *lake, environ=environ)
    wrong = micromegas(
        "serve", "--check-config", *lake, "--access-config", str(tmp_path / "access.json"), environ=environ
    )
    away = {"issuers": [{"issuer": "http://127.0.0.1:1", "audience": "lake"}]}
    doubtful = {"MICROMEGAS_OIDC_CONFIG": json.dumps(away), "MICROMEGAS_SERVER_MAX_QUERYS": "1"}
    silent = micromegas("serve", "--check-config", *lake, environ={**environ, **doubtful})
    elsewhere = micromegas("serve", "--check-config", *lake, "--host", "192.0.2.1", "--insecure", environ=environ)

    assert (valid.returncode, valid.stdout.splitlines()[0]) == (0, "The configuration is valid."), valid.stderr
    assert not (tmp_path / "lake").exists()
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "nothing" in wrong.stderr
    assert (silent.returncode, "127.0.0.1:1" in silent.stdout) == (0, True)
    assert "warning: The identity provider 127.0.0.1:1 " in silent.stderr
    assert "Did you mean MICROMEGAS_SERVER_MAX_QUERIES?" in silent.stderr
    assert "warning" not in valid.stderr.lower()
    assert elsewhere.returncode == 2
    assert "Cannot bind to 192.0.2.1:" in elsewhere.stderr
    assert "port" not in elsewhere.stderr


def test_an_api_key_file_in_a_profile_is_used(stack, micromegas, environ, tmp_path):
    variables = {"MICROMEGAS_API_KEYS": environ["MICROMEGAS_API_KEYS"]}
    with ServerProcess(tmp_path / "server", lake=tmp_path / "lake", keys={}, variables=variables) as server:
        folder = tmp_path / "config"
        folder.mkdir()
        key_file = tmp_path / "robot.key"
        key_file.write_text("a-key-for-this-test-only\n")
        profiles = {"profiles": {"robot": {"uri": server.uri, "api_key_file": str(key_file)}}}
        (folder / "config.json").write_text(json.dumps(profiles))
        own = {**environ, "MICROMEGAS_CONFIG_DIR": str(folder)}
        accepted = micromegas("whoami", "--profile", "robot", environ=own)
        answered = micromegas("query", "SELECT 1", "--profile", "robot", environ=own)
        key_file.write_text("another-key-that-nobody-knows")
        refused = micromegas("query", "SELECT 1", "--profile", "robot", environ=own)

    assert accepted.stdout.startswith("API key from robot.key\nserver 127.0.0.1:")
    assert "knows you as ci" in accepted.stdout
    # The key is one in plain text.
    assert [result.stderr.count("note: ") for result in (accepted, answered)] == [1, 1]
    assert refused.returncode == 3
    assert "AUTH010" in refused.stderr


def test_a_bad_statement_leaves_with_1_and_points_at_the_place(service, micromegas):
    result = micromegas("query", "SELECT tagret FROM log_entries", environ=service)

    assert result.returncode == 1
    assert "SQL001" in result.stderr
    assert "tagret" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_server_that_is_not_there_leaves_with_4(person, micromegas):
    environ = {name: value for name, value in person.items() if "OIDC" not in name}

    result = micromegas("query", "SELECT 1", "--uri", "grpc://127.0.0.1:1", environ=environ)

    assert result.returncode == 4
    assert "AVAIL003" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["query"], ["query", "SELECT 1", "--begin", "1hx"], ["query", "SELECT 1", "--end", "1h"], ["nonsense"], []],
)
def test_a_command_that_cannot_be_understood_leaves_with_2(person, micromegas, arguments):
    result = micromegas(*arguments, environ=person)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_the_demo_check_needs_no_person_and_no_browser(micromegas, environ):
    del environ["MICROMEGAS_API_KEYS"]

    result = micromegas("demo", "--check", environ=environ)

    assert result.returncode == 0, result.stderr
    assert "signed in as Alice Martin <alice@example.com>" in result.stderr
    log_lines, measures, processes = (text.splitlines() for text in result.stdout.strip().split("\n\n"))
    assert (log_lines[0].split(), len(log_lines)) == (["time", "level", "target", "msg"], 2 + 5)
    assert len(measures) > 2
    assert processes[2].startswith("micromegas demo ")
    assert "Closing acceptor" not in result.stderr
