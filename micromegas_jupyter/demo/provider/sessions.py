"""Who is signed in in which browser: opaque cookies, anti-forgery tokens, remembered consent.

The pages ask here; Flask's own signed cookie is not used, because signing out has to end a copied cookie too.
"""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from micromegas_jupyter.demo.provider.bounded import BoundedStore
from micromegas_jupyter.demo.provider.people import SignedIn

if TYPE_CHECKING:
    from micromegas_jupyter.demo.provider.people import Person
    from micromegas_jupyter.seams import Clock, Randomness

SESSION_LIFETIME_SECONDS = 8 * 3600
_MAX_SESSIONS = 1_000
_MAX_CONSENTS = 100


@dataclass(slots=True, kw_only=True, eq=False)
class BrowserSession:
    """One browser. Used by one request at a time in practice; each write is a single assignment.

    Attributes:
        cookie: What the browser holds.
        form_token: What each form of this browser has to bring back.
        signed_in: Who is signed in, None for nobody.
        fresh_for: The request, as text, for which the person has just given the password.
        consents: What was allowed here: client, redirect URI and scope.
    """

    cookie: str = field(repr=False)
    form_token: str = field(repr=False)
    signed_in: SignedIn | None = None
    fresh_for: str | None = None
    consents: tuple[tuple[str, str, str], ...] = ()

    def is_own_form(self, form_token: str) -> bool:
        """Whether a form was made for this browser."""
        return hmac.compare_digest(form_token.encode("utf-8", "replace"), self.form_token.encode())

    def remember_consent(self, consent: tuple[str, str, str]) -> None:
        """Remember what was allowed, the latest hundred."""
        self.consents = (*(known for known in self.consents if known != consent), consent)[-_MAX_CONSENTS:]


class BrowserSessions:
    """All browsers, for eight hours each, behind one lock."""

    def __init__(self, *, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._lock = threading.Lock()
        self._sessions: BoundedStore[BrowserSession] = BoundedStore(
            clock=clock, lifetime_seconds=SESSION_LIFETIME_SECONDS, max_entries=_MAX_SESSIONS
        )

    def find(self, cookie: str | None) -> BrowserSession | None:
        """Return the browser of this cookie, or None."""
        with self._lock:
            return self._sessions.get(cookie) if cookie else None

    def open(self) -> BrowserSession:
        """Return a new browser in which nobody is signed in."""
        session = BrowserSession(
            cookie=self._randomness.token_urlsafe(32), form_token=self._randomness.token_urlsafe(32)
        )
        with self._lock:
            self._sessions.put(session.cookie, session)
        return session

    def sign_in(self, session: BrowserSession, person: Person, *, fresh_for: str) -> BrowserSession:
        """Return the session that replaces `session`: a cookie known before the sign-in is worth nothing after it."""
        self.end(session)
        successor = self.open()
        successor.signed_in = SignedIn(person=person, authenticated_at=self._clock.now())
        successor.fresh_for = fresh_for
        return successor

    def end(self, session: BrowserSession) -> None:
        """Forget the browser."""
        with self._lock:
            self._sessions.take(session.cookie)
