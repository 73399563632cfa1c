"""Who is signed in, as a value.

What a logout did is `logout_report`'s.
"""

from dataclasses import dataclass
from datetime import datetime

from micromegas_jupyter.auth.logout_report import LogoutReport

__all__ = ["Identity", "LogoutReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is signed in, from the claims of the ID token that was verified when it came.

    Attributes:
        subject: The issuer's name of the person; unique together with the issuer.
        name: The person's name, for display.
        email: The person's address, for display.
        issuer: Who says so.
        expires_at: When the ID token ends (aware UTC).
        renews: Whether it is renewed without the person.
        groups: The person's groups and roles, as far as the token names them; for display.
    """

    subject: str
    name: str | None
    email: str | None
    issuer: str
    expires_at: datetime
    renews: bool
    groups: tuple[str, ...] = ()
