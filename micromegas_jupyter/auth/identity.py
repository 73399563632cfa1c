"""What a provider can say about a sign-in: who it is, and what was left when it ended."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit


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
    """

    subject: str
    name: str | None
    email: str | None
    issuer: str
    expires_at: datetime
    renews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutReport:
    """What a logout did; its `str` says it in words.

    Attributes:
        issuer: The provider that the sign-in was made at.
        was_signed_in: Whether there was anything to end.
        files_removed: How many stored files were removed.
        refresh_token_revoked: Whether the provider ended the refresh token.
        access_token_revoked: Whether the provider ended the access token.
        valid_until: When the last bearer token that nobody can call back ends (aware UTC); None when none is left.
        problem: Why something could not be revoked, None when all went well.
    """

    issuer: str
    was_signed_in: bool
    files_removed: int = 0
    refresh_token_revoked: bool = False
    access_token_revoked: bool = False
    valid_until: datetime | None = None
    problem: str | None = None

    def __str__(self) -> str:
        host = urlsplit(self.issuer).hostname or self.issuer
        if not self.was_signed_in:
            return f"Nobody was signed in to {host}."
        done = [f"{self.files_removed} {'file' if self.files_removed == 1 else 'files'} removed"]
        if self.access_token_revoked:
            done.insert(0, "access token revoked")
        if self.refresh_token_revoked:
            done.insert(0, "refresh token revoked")
        sentences = [f"Signed out of {host}: {', '.join(done)}."]
        if self.problem is not None:
            sentences.append(f"Not everything could be revoked there ({self.problem.rstrip('.')}).")
        if self.valid_until is not None:
            sentences.append(
                f"Tokens that were already handed out stay valid until {self.valid_until:%Y-%m-%d %H:%M} UTC."
            )
        return " ".join(sentences)
