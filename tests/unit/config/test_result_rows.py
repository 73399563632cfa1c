import pytest

from micromegas_jupyter.config.client import parse_result_rows
from micromegas_jupyter.errors import ConfigurationError


@pytest.mark.parametrize(
    ("environ", "rows"),
    [
        ({}, 1_000),
        ({"MICROMEGAS_RESULT_ROWS": ""}, 1_000),
        ({"MICROMEGAS_RESULT_ROWS": "0"}, 0),
        ({"MICROMEGAS_RESULT_ROWS": "10000"}, 10_000),
    ],
)
def test_the_number_of_rows_is_the_variable_s_or_a_thousand(environ: dict[str, str], rows: int) -> None:
    assert parse_result_rows(environ) == rows


@pytest.mark.parametrize("text", ["-1", "10001", "many", "1e3", "1_000", " 5", "٣", "9" * 5_000])
def test_what_is_no_such_number_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"MICROMEGAS_RESULT_ROWS is .* not a number from 0 to 10,000"):
        parse_result_rows({"MICROMEGAS_RESULT_ROWS": text})
