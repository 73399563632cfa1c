from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from micromegas_jupyter.auth import LogoutReport


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"was_signed_in": False}, "Nobody was signed in to id.example.com."),
        (
            {"was_signed_in": True, "files_removed": 2, "refresh_token_revoked": True},
            "Signed out of id.example.com: refresh token revoked, 2 files removed.",
        ),
        (
            {
                "was_signed_in": True,
                "files_removed": 1,
                "valid_until": datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
                "problem": "It does not answer.",
            },
            (
                "Signed out of id.example.com: 1 file removed. "
                "Not everything could be revoked there (It does not answer). "
                "Tokens that were already handed out stay valid until 2026-11-24 13:00 UTC."
            ),
        ),
        (
            {"was_signed_in": True, "refresh_token_revoked": True, "access_token_revoked": True},
            "Signed out of id.example.com: refresh token revoked, access token revoked, 0 files removed.",
        ),
    ],
)
def test_a_report_says_in_words_what_was_done(facts: dict[str, Any], text: str) -> None:
    assert str(LogoutReport(issuer="https://id.example.com/tenant", **facts)) == text
