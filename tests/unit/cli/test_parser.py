"""Errors about arguments: what is typed by mistake is not repeated."""

from __future__ import annotations

import pytest

from micromegas_jupyter.cli.main import build_parser, describe_problem, run
from micromegas_jupyter.config.server import REMOVED

SECRET = "mmk_8c1f0a6de2b94b7f"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["keys", "revoke", "report", SECRET], "micromegas keys revoke: error: unknown argument"),
        (["keys", "revoke", "report", f"--key={SECRET}"], "micromegas keys revoke: error: unknown argument"),
        (["keys", "list", f"--json={SECRET}"], "micromegas keys list: error: argument --json: its value cannot be"),
        (["keys", SECRET], "argument ACTION: not one of its choices (choose from"),
        (["keys", "create", "x", "--scope", SECRET], "argument --scope: not one of its choices (choose from"),
        (["keys", "create", "x", "--expires"], "argument --expires: expected one argument"),
        (["keys", "create"], "micromegas keys create: error: the following arguments are required: NAME"),
        (["serve", "--access-config", ""], "argument --access-config: is empty; give a value, or leave it out"),
        (["serve", "--disable-auth", "--lake="], "argument --lake: is empty"),
        (["serve", "--trusted-proxy", "::1", "--trusted-proxy", ""], "argument --trusted-proxy: is empty"),
        (["query", "SELECT 1", "--profile", ""], "argument --profile: is empty"),
        (["logout", "--profile", ""], "micromegas logout: error: argument --profile: is empty"),
        ([SECRET], "argument COMMAND: not one of its choices (choose from"),
        ([f"--{SECRET}"], "micromegas: error:"),
        (["process-log", "1", "--first", SECRET], "error: argument --first: its value cannot be used"),
        (["serve", f"--h={SECRET}"], "micromegas serve: error: unknown argument"),
        (["serve", SECRET], "micromegas serve: error: unknown argument"),
        (["query", "SELECT 1", "--format", f"(choose from {SECRET})"], "argument --format: not one of its choices"),
        (["access", "explain", "a", SECRET], "micromegas access explain: error: unknown argument"),
    ],
)
def test_a_wrong_argument_is_told_with_the_usage_of_its_command_and_not_repeated(words, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)

    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("usage: micromegas")
    assert expected in printed.err
    assert SECRET not in printed.err


def test_the_usage_is_that_of_the_command(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["keys", "revoke", "report", SECRET])

    assert capsys.readouterr().err.startswith("usage: micromegas keys revoke [-h] [--file FILE] NAME|ID")


@pytest.mark.parametrize("message", ["something new: hunter2", "ambiguous option: --hunter2 could match --a", ""])
def test_a_sentence_that_is_not_known_is_not_repeated(message):
    assert describe_problem(message) == "unknown argument"


def test_an_argument_that_excludes_another_is_named():
    message = "argument --a: not allowed with argument --b"

    assert describe_problem(message) == message


def test_good_arguments_are_read():
    arguments = build_parser().parse_args(["keys", "create", "report", "--scope", "read"])

    assert (arguments.command, arguments.action, arguments.name) == ("keys", "create", "report")


@pytest.mark.parametrize("secret", ["-5Kq", "--sql", "--client-secret", "-h", "plain"])
def test_a_client_secret_may_begin_with_a_dash(secret):
    parsed = build_parser().parse_args(
        ["query", "SELECT 1", "--client-secret", secret, "--issuer", "https://id.example"]
    )

    assert (parsed.client_secret, parsed.issuer, parsed.sql) == (secret, "https://id.example", "SELECT 1")


def test_a_client_secret_that_is_left_out_is_told(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["query", "SELECT 1", "--client-secret"])

    assert "argument --client-secret: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--workers=2"], ["--workers"], ["--workers", "--insecure"], ["--drain-seconds", "5"]]
)
def test_a_removed_option_is_refused_with_what_replaced_it(words, capsys):
    name = words[0].partition("=")[0]

    assert run(["serve", *words]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"✗ {name} is no longer an option. {REMOVED[name]}")


def test_a_value_of_serve_is_not_repeated(capsys):
    assert run(["serve", "--port", SECRET]) == 2

    printed = capsys.readouterr()
    assert "✗ --port is not a number from 0 to 65,535." in printed.err
    assert SECRET not in printed.err
