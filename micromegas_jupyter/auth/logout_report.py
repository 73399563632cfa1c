"""What a logout did, as a value and in words.

Doing it is `logout`'s job.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from micromegas_jupyter.core.urls import host_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutReport:
    """What a logout did; its `str` says it in one line.

    Attributes:
        issuer: The provider that the sign-in was made at.
        was_signed_in: Whether there was anything to end.
        files_removed: How many stored files, and entries of a keyring, were removed.
        refresh_token_revoked: Whether the provider ended the refresh token.
        access_token_revoked: Whether the provider ended the access token.
        valid_until: When the last bearer token that nobody can call back ends (aware UTC); None when none is left.
        left_valid: Which tokens those are: `access token`, `ID token`.
        ended_at: When the logout was (aware UTC).
        problem: Why something could not be revoked, None when all went well.
        provider_answered: Whether the provider could be reached.
        end_session_url: The provider's page that ends the person's session there, when that was asked for.
        end_session_opened: Whether a browser shows that page.
        end_session_problem: Why there is no such page, when it was asked for.
        others: What was done about the profile's sign-ins at other providers.
    """

    issuer: str
    was_signed_in: bool
    files_removed: int = 0
    refresh_token_revoked: bool = False
    access_token_revoked: bool = False
    valid_until: datetime | None = None
    left_valid: tuple[str, ...] = ()
    ended_at: datetime | None = None
    problem: str | None = None
    provider_answered: bool = True
    end_session_url: str | None = None
    end_session_opened: bool = False
    end_session_problem: str | None = None
    others: tuple["LogoutReport", ...] = ()

    def __str__(self) -> str:
        return " ".join(sentence for report in (self, *self.others) for sentence in report.sentences())

    @property
    def host(self) -> str:
        """The provider's host, with the port when it has one of its own, for people."""
        return host_text(self.issuer)

    def sentences(self) -> list[str]:
        """Return what was done at this provider, without the others."""
        if not self.was_signed_in:
            leftovers = f" {_files(self.files_removed)} removed." if self.files_removed else ""
            where = f" to {self.host}" if self.issuer else ""
            return [f"Nobody was signed in{where}.{leftovers}", *self._about_session()]
        done = [f"{_files(self.files_removed)} removed"]
        if self.access_token_revoked:
            done.insert(0, "access token revoked")
        if self.refresh_token_revoked:
            done.insert(0, "refresh token revoked")
        return [
            f"Signed out of {self.host}: {', '.join(done)}.",
            *self._about_problem(),
            *self._about_tokens(),
            *self._about_session(),
        ]

    def _about_problem(self) -> list[str]:
        if self.problem is None:
            return []
        detail = self.problem.rstrip(".")
        if not self.provider_answered:
            why = detail.rpartition(": ")[2]
            left = "" if self.refresh_token_revoked else ", but the refresh token lives on there"
            return [
                f"{self.host} could not be asked to revoke everything ({why}): you are signed out here{left}.",
                "End the session on its account page.",
            ]
        return [f"Not everything could be revoked there ({detail})."]

    def _about_tokens(self) -> list[str]:
        if self.valid_until is None:
            return []
        names = " and ".join(self.left_valid) or "tokens that were already handed out"
        stay, them = ("stays", "it") if len(self.left_valid) == 1 else ("stay", "them")
        why = f": the provider cannot revoke {them}" if self.problem is None else ""
        return [f"The {names} {stay} valid until {self._moment(self.valid_until)}{why}."]

    def _about_session(self) -> list[str]:
        if self.end_session_problem is not None:
            return [f"Your session at {self.host} goes on ({self.end_session_problem.rstrip('.')})."]
        if self.end_session_url is None:
            return []
        if self.end_session_opened:
            return [f"Your browser shows the page of {self.host} that ends your session there."]
        return [f"To end your session at {self.host} too, open {self.end_session_url} in your browser."]

    def _moment(self, moment: datetime) -> str:
        if self.ended_at is None or moment.date() != self.ended_at.date():
            text = f"{moment:%Y-%m-%d %H:%M} UTC"
        else:
            text = f"{moment:%H:%M} UTC"
        if self.ended_at is None:
            return text
        seconds = (moment - self.ended_at).total_seconds()
        return f"{text} (in {_duration(seconds)})"


def join_reports(first: LogoutReport, second: LogoutReport) -> LogoutReport:
    """Return what two logouts at one provider did together; something counts as revoked when it was in both."""
    if not (first.was_signed_in and second.was_signed_in):
        kept = first if first.was_signed_in else second
        return replace(
            kept, files_removed=first.files_removed + second.files_removed, problem=first.problem or second.problem
        )
    ends = [each.valid_until for each in (first, second) if each.valid_until is not None]
    return replace(
        first,
        files_removed=first.files_removed + second.files_removed,
        refresh_token_revoked=first.refresh_token_revoked and second.refresh_token_revoked,
        access_token_revoked=first.access_token_revoked and second.access_token_revoked,
        valid_until=max(ends, default=None),
        left_valid=tuple(dict.fromkeys(first.left_valid + second.left_valid)),
        problem=first.problem or second.problem,
        provider_answered=first.provider_answered and second.provider_answered,
    )


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"  # noqa: PLR2004 - two hours
