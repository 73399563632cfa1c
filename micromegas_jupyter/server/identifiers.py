"""Names that the server gives out: query ids and the handles of prepared statements."""

import base64
import uuid
from typing import Final

from micromegas_jupyter.seams import Randomness

_UUID_BYTES: Final = 16
_HANDLE_BYTES: Final = 24


def new_query_id(randomness: Randomness) -> str:
    """Return a random UUID, the form that upstream's query ids have."""
    drawn = base64.urlsafe_b64decode(randomness.token_urlsafe(_UUID_BYTES) + "==")
    return str(uuid.UUID(bytes=drawn, version=4))


def new_statement_handle(sql: str, randomness: Randomness) -> bytes:
    r"""Return an unguessable handle for a prepared statement.

    The handle is the SQL itself with a random comment at its end: upstream's client shows a handle to people as the
    statement's text, and runs it as an ordinary statement. The line break ends a comment that the SQL may end with.
    """
    return f"{sql}\n-- prepared {randomness.token_urlsafe(_HANDLE_BYTES)}".encode()
