"""The names in addresses that lead a browser's request to one sign-in in one kernel: `kernel_id.random`.

A start address ends with such a name, and the state of a sign-in by redirect is another one, so the Jupyter server
finds the kernel and keeps nothing. Drawing the random part and judging it are the kernel's (`auth`).
"""

import hashlib
import re
from urllib.parse import parse_qsl

RANDOM_BYTES = 32
"""How many random bytes make a name unguessable (RFC 9700 section 4.7 asks for enough of them in a state)."""

START_PATH = "micromegas/start/"
CALLBACK_PATH = "micromegas/callback"
DONE_PATH = "micromegas/done"

_MAX_PARAMETERS = 50
# A kernel id is a UUID nearly everywhere; what provisioners and gateways make of it stays within this.
_KERNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{43}", re.ASCII)


def is_kernel_id(text: str) -> bool:
    """Whether a text can stand before the dot."""
    return _KERNEL_ID.fullmatch(text) is not None


def build_name(kernel_id: str, random: str) -> str:
    """Return the name of one sign-in of a kernel.

    Args:
        kernel_id: As the Jupyter server knows the kernel.
        random: `RANDOM_BYTES` random bytes as unpadded base64url.

    Raises:
        ValueError: One of them cannot stand in a name.
    """
    name = f"{kernel_id}.{random}"
    if _NAME.fullmatch(name) is None:
        raise ValueError("not the parts of a name")
    return name


def kernel_id_in(name: str) -> str | None:
    """Return the kernel that a name leads to; None when it is no such name."""
    found = _NAME.fullmatch(name)
    return None if found is None else found.group(1)


def state_in(query: str) -> str | None:
    """Return the state that stands in a query exactly once; None when none does."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    states = [value for name, value in pairs if name == "state"]
    return states[0] if len(states) == 1 else None


def digest_of(name: str) -> str:
    """Return what a name is known by where the name itself must not be kept: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
