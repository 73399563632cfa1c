"""No session is kept: what holds can be read, setting anything else is an error for that option."""

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.server.flight_methods import close_session, get_options, set_options

INVALID_NAME, INVALID_VALUE, CLOSED = 1, 2, 1


def _set(**options: object) -> dict[str, int]:
    values = {name: messages.SessionOptionValue(**{kind: value}) for name, (kind, value) in options.items()}  # type: ignore[misc]
    result = set_options(messages.SetSessionOptionsRequest(session_options=values))
    return {name: error.value for name, error in result.errors.items()}


def test_what_holds_can_be_read() -> None:
    options = get_options(messages.GetSessionOptionsRequest()).session_options

    assert {name: value.string_value for name, value in options.items()} == {
        "catalog": "",
        "schema": "",
        "timezone": "UTC",
    }


def test_setting_what_holds_is_fine() -> None:
    assert _set(catalog=("string_value", ""), timezone=("string_value", "UTC")) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("catalog", ("string_value", "other"), INVALID_VALUE),
        ("timezone", ("int64_value", 0), INVALID_VALUE),
        ("schema", ("bool_value", False), INVALID_VALUE),
        ("anything", ("string_value", ""), INVALID_NAME),
    ],
)
def test_anything_else_is_an_error_of_its_option(name: str, value: tuple[str, object], expected: int) -> None:
    assert (
        _set(**{name: value, "timezone" if name != "timezone" else "catalog": ("double_value", 1.5)})[name] == expected
    )


def test_an_option_without_a_value_is_an_error() -> None:
    result = set_options(messages.SetSessionOptionsRequest(session_options={"catalog": messages.SessionOptionValue()}))

    assert result.errors["catalog"].value == INVALID_VALUE


@pytest.mark.parametrize("names", [[f"option{number}" for number in range(65)], ["x" * 257]])
def test_more_options_than_any_client_needs_are_refused(names: list[str]) -> None:
    values = {name: messages.SessionOptionValue(bool_value=True) for name in names}

    with pytest.raises(UsageError):
        set_options(messages.SetSessionOptionsRequest(session_options=values))


def test_a_session_is_closed_at_once() -> None:
    assert close_session(messages.CloseSessionRequest()).status == CLOSED
