from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from micromegas_jupyter.auth.logout import LogoutReport, _joined

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 12, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"was_signed_in": False}, "Nobody was signed in to id.example.com."),
        (
            {"was_signed_in": False, "files_removed": 1},
            "Nobody was signed in to id.example.com. 1 file removed.",
        ),
        (
            {"was_signed_in": True, "files_removed": 2, "refresh_token_revoked": True},
            "Signed out of id.example.com: refresh token revoked, 2 files removed.",
        ),
        (
            {
                "was_signed_in": True,
                "files_removed": 2,
                "refresh_token_revoked": True,
                "valid_until": LATER,
                "left_valid": ("access token",),
                "ended_at": NOON,
            },
            (
                "Signed out of id.example.com: refresh token revoked, 2 files removed. "
                "The access token stays valid until 12:58 UTC (in 58 min): the provider cannot revoke it."
            ),
        ),
        (
            {
                "was_signed_in": True,
                "refresh_token_revoked": True,
                "valid_until": datetime(2026, 11, 25, 0, 0, tzinfo=UTC),
                "left_valid": ("ID token", "access token"),
                "ended_at": NOON,
            },
            (
                "Signed out of id.example.com: refresh token revoked, 0 files removed. "
                "The ID token and access token stay valid until 2026-11-25 00:00 UTC (in 12 h): "
                "the provider cannot revoke them."
            ),
        ),
        (
            {"was_signed_in": True, "files_removed": 1, "problem": "invalid_client"},
            "Signed out of id.example.com: 1 file removed. id.example.com did not revoke everything (invalid_client).",
        ),
        (
            {
                "was_signed_in": True,
                "files_removed": 1,
                "problem": "It does not answer.",
                "provider_answered": False,
                "valid_until": LATER,
                "left_valid": ("access token",),
                "ended_at": NOON,
            },
            (
                "Signed out of id.example.com: 1 file removed. "
                "id.example.com could not be reached to revoke everything (It does not answer): you are signed out "
                "here, but the refresh token is still valid there. End the session on its account page. "
                "The access token stays valid until 12:58 UTC (in 58 min)."
            ),
        ),
        (
            {"was_signed_in": True, "refresh_token_revoked": True, "access_token_revoked": True},
            "Signed out of id.example.com: refresh token revoked, access token revoked, 0 files removed.",
        ),
        (
            {"was_signed_in": False, "end_session_url": "https://id.example.com/end", "end_session_opened": True},
            (
                "Nobody was signed in to id.example.com. "
                "Your browser shows the page of id.example.com that ends your session there."
            ),
        ),
        (
            {"was_signed_in": False, "end_session_url": "https://id.example.com/end?client_id=c"},
            (
                "Nobody was signed in to id.example.com. To end your session at id.example.com too, open "
                "https://id.example.com/end?client_id=c in your browser."
            ),
        ),
        (
            {"was_signed_in": False, "end_session_problem": "It has no page for that."},
            (
                "Nobody was signed in to id.example.com. "
                "Your session at id.example.com continues (It has no page for that)."
            ),
        ),
    ],
)
def test_a_report_says_in_one_line_what_was_done(facts: dict[str, Any], text: str) -> None:
    assert str(LogoutReport(issuer="https://id.example.com/tenant", **facts)) == text


def test_a_report_names_the_other_providers() -> None:
    other = LogoutReport(issuer="https://other.example.com", was_signed_in=True, files_removed=1)

    text = str(LogoutReport(issuer="https://id.example.com", was_signed_in=True, files_removed=2, others=(other,)))

    assert text == "Signed out of id.example.com: 2 files removed. Signed out of other.example.com: 1 file removed."


FIRST = LogoutReport(
    issuer="https://id.example.com",
    was_signed_in=True,
    files_removed=2,
    refresh_token_revoked=True,
    valid_until=NOON,
    left_valid=("ID token",),
)


def test_what_was_revoked_in_one_sign_in_only_does_not_count_as_revoked() -> None:
    second = replace(FIRST, files_removed=1, refresh_token_revoked=False, problem="invalid_client")

    joined = _joined(FIRST, second)

    assert (joined.refresh_token_revoked, joined.files_removed, joined.problem) == (False, 3, "invalid_client")


def test_the_token_that_stays_valid_longest_counts() -> None:
    second = replace(FIRST, valid_until=LATER, left_valid=("access token", "ID token"))

    joined = _joined(FIRST, second)

    assert (joined.valid_until, joined.left_valid) == (LATER, ("ID token", "access token"))


def test_a_place_where_nobody_was_signed_in_changes_nothing_but_the_count() -> None:
    nobody = LogoutReport(issuer="https://id.example.com", was_signed_in=False, files_removed=1)

    assert _joined(FIRST, nobody) == replace(FIRST, files_removed=3)
    assert _joined(nobody, FIRST) == replace(FIRST, files_removed=3)
