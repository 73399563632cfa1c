"""What a sign-in is asked for, and whether a stored one answers for it.

The tokens and their files are `token_format`'s and `token_store`'s.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInEntry:
    """What one sign-in is asked for; two that differ in anything never answer for each other.

    Attributes:
        issuer: The provider.
        client_id: The application.
        audience: The API, at providers that want it named.
        scope: What is asked for; None when that is not known.
        resource: The API, at providers that take RFC 8707's parameter.
    """

    issuer: str
    client_id: str
    audience: str | None = None
    scope: str | None = None
    resource: str | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that differ between entries; part of file names, so it never changes."""
        scope = " ".join(sorted((self.scope or "").split()))
        parts = [self.issuer, self.client_id, self.audience or "", scope]
        if self.resource:
            parts.append(self.resource)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def answers(self, asked: "SignInEntry") -> bool:
        """Whether a sign-in of this entry is what one would get by asking for `asked`.

        A stored scope that is not known, as upstream leaves it, fits any. The order of a scope's words says nothing
        (RFC 6749 section 3.3).
        """
        if (self.issuer, self.client_id, self.audience or None) != (
            asked.issuer,
            asked.client_id,
            asked.audience or None,
        ):
            return False
        if self.scope is None and self.resource is None:
            return True
        if self.resource != (asked.resource or None):
            return False
        return self.scope is None or asked.scope is None or set(self.scope.split()) == set(asked.scope.split())
