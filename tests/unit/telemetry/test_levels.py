import logging

import pytest

from micromegas_jupyter.telemetry import Level, level_from_logging


@pytest.mark.parametrize(
    ("levelno", "level"),
    [
        (logging.CRITICAL, 1),
        (logging.ERROR, 2),
        (logging.WARNING, 3),
        (logging.INFO, 4),
        (logging.DEBUG, 5),
        (5, 6),
        (logging.NOTSET, 6),
        (1000, 1),
    ],
)
def test_the_named_levels_of_logging_have_upstreams_numbers(levelno: int, level: int) -> None:
    assert level_from_logging(levelno) == level


def test_a_level_between_two_names_counts_as_the_lower_one() -> None:
    assert level_from_logging(35) is Level.WARN
    assert level_from_logging(25) is Level.INFO
