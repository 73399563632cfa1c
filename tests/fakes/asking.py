"""Whether a validator lets a credential in, asked as the server asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.errors import Rejected

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import TokenValidator


def is_accepted(validator: TokenValidator, token: str) -> bool:
    """Ask what is remembered first, then the check itself."""
    if validator.cached_context(token) is not None:
        return True
    try:
        validator.validate_token(token)
    except Rejected:
        return False
    return True
