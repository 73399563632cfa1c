"""How many rows of a result a notebook shows as a table to work with; showing them is the notebook's job."""

from collections.abc import Mapping

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import shown

RESULT_ROWS_VARIABLE = "MICROMEGAS_RESULT_ROWS"
DEFAULT_RESULT_ROWS = 1_000
MAX_RESULT_ROWS = 10_000


def parse_result_rows(environ: Mapping[str, str]) -> int:
    """Return how many rows at most go to the browser; 0 leaves it at the preview.

    Raises:
        ConfigurationError: The variable is no such number.
    """
    text = environ.get(RESULT_ROWS_VARIABLE, "")
    if not text:
        return DEFAULT_RESULT_ROWS
    # `isdecimal` alone takes digits of all scripts.
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > len(str(MAX_RESULT_ROWS))
        or int(text) > MAX_RESULT_ROWS
    ):
        raise ConfigurationError(
            f"{RESULT_ROWS_VARIABLE} is {shown(text)}, which is not a number from 0 to {MAX_RESULT_ROWS:,}.",
            key=RESULT_ROWS_VARIABLE,
        )
    return int(text)
