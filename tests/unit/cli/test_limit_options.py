"""Options of `micromegas serve` stand for the variables of the limits."""

from __future__ import annotations

import argparse

import pytest

from micromegas_jupyter.cli.limit_options import REMOVED_OPTIONS, add_limit_arguments, limit_environment
from micromegas_jupyter.cli.main import run
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings import parse_server_limits
from micromegas_jupyter.settings.server_limits import COUNTED_LIMITS, CountedLimit


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


@pytest.mark.parametrize(
    "limit", [limit for limit in COUNTED_LIMITS if limit.option_name], ids=lambda limit: limit.name
)
def test_the_help_says_range_default_and_variable(limit: CountedLimit) -> None:
    parser = argparse.ArgumentParser()
    add_limit_arguments(parser)
    (action,) = [
        found for found in parser._actions if f"--{limit.option_name}".replace("_", "-") in found.option_strings
    ]

    assert str(action.help).endswith(f"; {limit.least} to {limit.most}, default {limit.default} ({limit.variable})")


@pytest.mark.parametrize("option", REMOVED_OPTIONS)
def test_an_option_that_was_removed_says_what_replaced_it(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["serve", option, "1"])

    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert shown.err == f"✗ {option} is no longer an option. {REMOVED_OPTIONS[option]} · USE001\n"
