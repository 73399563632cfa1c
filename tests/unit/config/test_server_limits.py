"""The limits of a server are whole numbers in a range, or an error that names the variable."""

from __future__ import annotations

import dataclasses
import re

import pytest

from micromegas_jupyter.config.server_limits import (
    COUNTED_LIMITS,
    REMOVED_VARIABLES,
    SPILL_DIRECTORY_VARIABLE,
    CountedLimit,
    ServerLimits,
    parse_server_limits,
)
from micromegas_jupyter.errors import ConfigurationError
from tests.architecture.guide_text import read_page, table_rows

by_name = pytest.mark.parametrize("limit", COUNTED_LIMITS, ids=lambda limit: limit.name)


def test_without_variables_there_are_the_defaults() -> None:
    assert parse_server_limits({}) == ServerLimits()


def test_an_empty_variable_counts_as_not_set() -> None:
    empty = {limit.variable: "" for limit in COUNTED_LIMITS} | {SPILL_DIRECTORY_VARIABLE: ""}

    assert parse_server_limits(empty) == ServerLimits()


@by_name
def test_the_ends_of_the_range_are_accepted(limit: CountedLimit) -> None:
    for number in (limit.least, limit.most):
        limits = parse_server_limits({limit.variable: str(number)})

        assert limits == dataclasses.replace(ServerLimits(), **{limit.name: number})


@by_name
@pytest.mark.parametrize("text", ["-1", "1.5", "1e3", "many", " 7", "७", "9" * 5000, "0x10"])
def test_anything_else_is_refused_with_the_variables_name(limit: CountedLimit, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_server_limits({limit.variable: text})

    assert caught.value.key == limit.variable
    assert len(str(caught.value)) < 500


@by_name
def test_a_number_beyond_the_range_is_refused(limit: CountedLimit) -> None:
    for number in (limit.least - 1, limit.most + 1):
        with pytest.raises(ConfigurationError, match=limit.variable):
            parse_server_limits({limit.variable: str(number)})


def test_an_error_names_what_was_given_in_place_of_the_variable() -> None:
    names = {"MICROMEGAS_SERVER_MAX_ROWS": "--max-rows"}

    with pytest.raises(ConfigurationError) as caught:
        parse_server_limits({"MICROMEGAS_SERVER_MAX_ROWS": "all"}, names=names)

    assert caught.value.key == "--max-rows"
    assert caught.value.what.startswith("--max-rows is 'all'")


@pytest.mark.parametrize("text", ["spill", "./spill", "/tmp/\0"])
def test_a_spill_directory_is_named_by_an_absolute_path(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_server_limits({SPILL_DIRECTORY_VARIABLE: text})

    assert caught.value.key == SPILL_DIRECTORY_VARIABLE


@pytest.mark.parametrize(
    ("variable", "successor"),
    [
        ("MICROMEGAS_SERVER_MAX_HEAVY_QUERIES", "take turns"),
        ("MICROMEGAS_SERVER_MAX_STUCK_QUERIES", "MICROMEGAS_SERVER_MAX_ENDED_PER_CALLER"),
        ("MICROMEGAS_SERVER_QUEUE_SECONDS", "MICROMEGAS_SERVER_QUEUE_TIMEOUT_SECONDS"),
        ("MICROMEGAS_SERVER_SILENT_CLIENT_SECONDS", "MICROMEGAS_SERVER_READ_TIMEOUT_SECONDS"),
        ("MICROMEGAS_SERVER_STALLED_CLIENT_SECONDS", "MICROMEGAS_SERVER_WRITE_TIMEOUT_SECONDS"),
    ],
)
def test_a_removed_variable_is_refused_with_what_replaced_it(variable: str, successor: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_server_limits({variable: "5"})

    assert caught.value.code == "CONF001"
    assert caught.value.key == variable
    assert successor in caught.value.remedy


def test_a_removed_variable_that_is_empty_counts_as_not_set() -> None:
    assert parse_server_limits(dict.fromkeys(REMOVED_VARIABLES, "")) == ServerLimits()


def test_each_removed_variable_names_a_successor_that_exists_or_none() -> None:
    for remedy in REMOVED_VARIABLES.values():
        assert set(re.findall(r"MICROMEGAS_\w+", remedy)) <= {limit.variable for limit in COUNTED_LIMITS}


def test_every_field_has_a_variable() -> None:
    fields = {field.name for field in dataclasses.fields(ServerLimits)}

    assert {limit.name for limit in COUNTED_LIMITS} | {"spill_directory"} == fields


@by_name
def test_option_range_and_default_are_those_that_the_page_states(limit: CountedLimit) -> None:
    default = getattr(ServerLimits(), limit.name)
    stated = [row for row in table_rows(read_page("settings.md")) if row[0] == f"`{limit.variable}`"]

    option = limit.option_name
    assert [row[1] for row in stated] == ["" if option is None else f"`--{option.replace('_', '-')}`"]
    assert [re.findall(r"\d+", row[3]) for row in stated] == [[str(limit.least), str(limit.most)]]
    assert [row[4] for row in stated] == [str(default)]
