"""Options of `micromegas serve` stand for the variables of the limits."""

from __future__ import annotations

import argparse
import re

import pytest

from micromegas_jupyter.cli.main import build_parser, run
from micromegas_jupyter.cli.serve_command import REMOVED_OPTIONS, add_limit_arguments, limit_environment
from micromegas_jupyter.config.server_limits import COUNTED_LIMITS, CountedLimit, parse_server_limits
from micromegas_jupyter.errors import ConfigurationError


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_limit_arguments(parser)
    return parser.parse_args(words)


def test_an_option_wins_over_its_variable() -> None:
    environ = {"MICROMEGAS_SERVER_MAX_ROWS": "5", "MICROMEGAS_SERVER_MAX_QUERIES": "7", "OTHER": "x"}

    merged, limits = limit_environment(_parse("--max-rows", "6", "--spill-directory", "/"), environ)

    assert merged["OTHER"] == "x"
    assert limits == parse_server_limits(merged)
    assert (limits.max_rows, limits.max_queries, limits.spill_directory) == (6, 7, "/")


def test_an_error_names_the_option_that_was_given() -> None:
    with pytest.raises(ConfigurationError) as caught:
        limit_environment(_parse("--max-rows", "all"), {})

    assert caught.value.key == "--max-rows"


def test_an_error_names_the_variable_when_no_option_was_given() -> None:
    with pytest.raises(ConfigurationError) as caught:
        limit_environment(_parse(), {"MICROMEGAS_SERVER_MAX_ROWS": "all"})

    assert caught.value.key == "MICROMEGAS_SERVER_MAX_ROWS"


def test_an_option_of_another_name_than_its_limit_wins_over_the_variable() -> None:
    environ = {"MICROMEGAS_SERVER_QUERY_TIMEOUT_SECONDS": "5"}

    merged, limits = limit_environment(_parse("--query-timeout", "6", "--write-timeout", "7"), environ)

    assert merged["MICROMEGAS_SERVER_QUERY_TIMEOUT_SECONDS"] == "6"
    assert (limits.query_timeout_seconds, limits.write_timeout_seconds) == (6, 7)


def test_an_error_names_the_option_of_another_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        limit_environment(_parse("--queue-timeout", "0"), {})

    assert caught.value.key == "--queue-timeout"


@pytest.mark.parametrize(
    "limit", [limit for limit in COUNTED_LIMITS if limit.option_name is not None], ids=lambda limit: limit.name
)
def test_the_help_says_range_default_and_variable(limit: CountedLimit) -> None:
    parser = argparse.ArgumentParser()
    add_limit_arguments(parser)
    (action,) = [found for found in parser._actions if found.dest == limit.name and found.help != argparse.SUPPRESS]

    assert str(action.help).endswith(f"; {limit.least} to {limit.most}, default {limit.default} ({limit.variable})")


@pytest.mark.parametrize(
    ("option", "successor"),
    [
        ("--workers", "--max-queries"),
        ("--spare-workers", "kept ready"),
        ("--max-heavy-queries", "take turns"),
        ("--max-stuck-queries", "MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER"),
        ("--query-timeout-seconds", "--query-timeout"),
        ("--queue-seconds", "--queue-timeout"),
        ("--silent-client-seconds", "--read-timeout"),
        ("--stalled-client-seconds", "--write-timeout"),
        ("--max-statement-bytes", "MICROMEGAS_SERVER_MAX_STATEMENT_BYTES"),
        ("--max-message-mib", "MICROMEGAS_SERVER_MAX_MESSAGE_MIB"),
        ("--max-metadata-kib", "MICROMEGAS_SERVER_MAX_METADATA_KIB"),
        ("--max-calls", "MICROMEGAS_SERVER_MAX_CALLS"),
        ("--max-calls-per-caller", "MICROMEGAS_SERVER_MAX_CALLS_PER_CALLER"),
        ("--upload-seconds", "MICROMEGAS_SERVER_UPLOAD_SECONDS"),
        ("--ticket-life-seconds", "MICROMEGAS_SERVER_TICKET_LIFE_SECONDS"),
        ("--connection-idle-seconds", "MICROMEGAS_SERVER_CONNECTION_IDLE_SECONDS"),
        ("--connection-age-seconds", "MICROMEGAS_SERVER_CONNECTION_AGE_SECONDS"),
        ("--max-ingest-mib", "MICROMEGAS_SERVER_MAX_INGEST_MIB"),
        ("--max-ingests", "MICROMEGAS_SERVER_MAX_INGESTS"),
        ("--max-ingests-per-caller", "MICROMEGAS_SERVER_MAX_INGESTS_PER_CALLER"),
        ("--max-tables-per-caller", "MICROMEGAS_SERVER_MAX_TABLES_PER_CALLER"),
    ],
)
def test_a_removed_option_is_refused_with_what_replaced_it(
    option: str, successor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["serve", option, "2"])

    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert f"{option} is no longer an option." in printed.err
    assert successor in printed.err


@pytest.mark.parametrize("words", [["--workers=2"], ["--workers"], ["--workers", "--insecure"]])
def test_a_removed_option_is_refused_with_or_without_a_value(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *words]) == 2
    assert "--workers is no longer an option." in capsys.readouterr().err


def test_a_removed_option_is_not_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["serve", "--help"])

    told = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out))
    assert told & set(REMOVED_OPTIONS) == set()
    assert "--query-timeout" in told


def test_every_removed_option_names_an_option_or_a_variable_that_exists() -> None:
    options = {option for action in _serve_actions() for option in action.option_strings} - set(REMOVED_OPTIONS)
    variables = {limit.variable for limit in COUNTED_LIMITS}

    for remedy in REMOVED_OPTIONS.values():
        assert set(re.findall(r"--[a-z-]+", remedy)) <= options
        assert set(re.findall(r"MICROMEGAS_\w+", remedy)) <= variables


def _serve_actions() -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    add_limit_arguments(parser)
    return parser._actions
