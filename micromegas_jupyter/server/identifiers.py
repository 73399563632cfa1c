"""Names that the server gives out: query ids."""

import base64
import uuid
from typing import Final

from micromegas_jupyter.seams import Randomness

_UUID_BYTES: Final = 16


def new_query_id(randomness: Randomness) -> str:
    """Return a random UUID, the form that upstream's query ids have."""
    drawn = base64.urlsafe_b64decode(randomness.token_urlsafe(_UUID_BYTES) + "==")
    return str(uuid.UUID(bytes=drawn, version=4))
