"""Names that the server gives out: query ids."""

import base64
from typing import Final

from micromegas_jupyter.seams import Randomness

_UUID_BYTES: Final = 16


def new_query_id(randomness: Randomness) -> str:
    """Return a random UUID, the form that upstream's query ids have."""
    drawn = bytearray(base64.urlsafe_b64decode(randomness.token_urlsafe(_UUID_BYTES) + "=="))
    # Version and variant of RFC 9562, section 5.4; `uuid.UUID` takes several times as long for each call.
    drawn[6] = drawn[6] & 0x0F | 0x40
    drawn[8] = drawn[8] & 0x3F | 0x80
    digits = drawn.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
