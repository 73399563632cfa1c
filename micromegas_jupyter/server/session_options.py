"""Flight's session actions for a server that keeps no sessions: what holds, what can be set (nothing), how it ends.

Every call brings all that it needs, and may reach any process of the server; so nothing is kept between calls.
"""

from typing import Any, Final

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql import messages

_MAX_OPTIONS: Final = 64
_MAX_NAME: Final = 256
# Names that clients know from Flight SQL and ADBC. Tables have no catalog and no schema; times are in UTC.
_OPTIONS: Final = {"catalog": "", "schema": "", "timezone": "UTC"}


def get_options(_request: Any) -> Any:
    """Return the options that hold for every call."""
    values = {name: messages.SessionOptionValue(string_value=value) for name, value in _OPTIONS.items()}
    return messages.GetSessionOptionsResult(session_options=values)


def set_options(request: Any) -> Any:
    """Return an error for each option that would change something; setting what holds anyway is fine.

    Raises:
        UsageError: More or longer names than any client needs.
    """
    options = request.session_options
    if len(options) > _MAX_OPTIONS or any(len(name) > _MAX_NAME for name in options):
        raise UsageError(
            "The call sets too many session options.", remedy=f"This server knows {', '.join(_OPTIONS)} only."
        )
    errors = {name: _find_error(name, value) for name, value in options.items()}
    return messages.SetSessionOptionsResult(
        errors={name: messages.SetSessionOptionsResult.Error(value=error) for name, error in errors.items() if error}
    )


def close_session(_request: Any) -> Any:
    """Return that the session is closed: there is nothing that could stay."""
    return messages.CloseSessionResult(status=messages.CloseSessionResult.CLOSED)


def _find_error(name: str, value: Any) -> int:
    """Return 0 when the option has the value already."""
    if name not in _OPTIONS:
        return int(messages.SetSessionOptionsResult.INVALID_NAME)
    is_held = value.WhichOneof("option_value") == "string_value" and value.string_value == _OPTIONS[name]
    return 0 if is_held else int(messages.SetSessionOptionsResult.INVALID_VALUE)
