from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.notebook.identity_state import IdentityState, IdentityStatus, identity_lines, lines_as_html

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ALICE = IdentityState(
    status=IdentityStatus.SIGNED_IN,
    server="lake.example.com",
    issuer="id.example.com",
    name="Alice Martin",
    email="alice@example.com",
    ends_at=datetime(2026, 11, 24, 15, 42, tzinfo=UTC),
    renews=True,
)


def first_line(**changes: object) -> str:
    return identity_lines(replace(ALICE, **changes), now=NOW)[0]


def test_who_is_signed_in_where_and_until_when_is_one_sentence() -> None:
    assert first_line() == (
        "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC, renews by itself."
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"renews": False}, "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC."),
        (
            {"name": "the holder of an API key", "email": None, "issuer": "", "ends_at": None, "renews": False},
            "Signed in as the holder of an API key.",
        ),
        ({"status": IdentityStatus.SIGNED_OUT}, "Not signed in to id.example.com."),
        (
            {"status": IdentityStatus.EXPIRED},
            "Signed out of id.example.com: the sign-in has ended. Run %micromegas_login.",
        ),
        (
            {"status": IdentityStatus.RENEWAL_FAILED},
            "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC.",
        ),
        (
            {"status": IdentityStatus.NOT_CONFIGURED},
            "No sign-in is configured: lake.example.com is used without one.",
        ),
        (
            {"status": IdentityStatus.WAITING, "start_url": "http://127.0.0.1:4/x"},
            "Sign in to id.example.com: open http://127.0.0.1:4/x until 15:42 UTC. This notebook continues by itself.",
        ),
    ],
)
def test_each_state_has_its_sentence(changes: dict[str, object], line: str) -> None:
    assert first_line(**changes) == line


@pytest.mark.parametrize("status", list(IdentityStatus))
def test_every_status_has_a_sentence(status: IdentityStatus) -> None:
    assert first_line(status=status)


def test_what_happened_and_what_the_server_says_have_lines_of_their_own() -> None:
    state = replace(ALICE, detail="The provider did not answer.", server_line="connected as alice, 14 ms")

    assert identity_lines(state, now=NOW)[1:] == [
        "The provider did not answer.",
        "lake.example.com: connected as alice, 14 ms",
    ]


def test_the_remaining_time_never_runs_below_zero() -> None:
    assert ALICE.remaining_seconds(NOW) == 3 * 3600 + 42 * 60
    assert ALICE.remaining_seconds(NOW + timedelta(days=1)) == 0.0
    assert replace(ALICE, ends_at=None).remaining_seconds(NOW) is None


def test_html_has_a_link_that_opens_a_page_of_its_own() -> None:
    html = lines_as_html(["<one>", "two"], link_url="http://127.0.0.1:4/x?a=1&b=2")

    assert html == (
        '<p>&lt;one&gt;<br>two<br><a href="http://127.0.0.1:4/x?a=1&amp;b=2" target="_blank" '
        'rel="noopener noreferrer">Sign in</a></p>'
    )


@pytest.mark.parametrize("url", [None, "", "javascript:alert(1)", "data:text/html,x"])
def test_only_web_addresses_become_links(url: str | None) -> None:
    assert lines_as_html(["one"], link_url=url) == "<p>one</p>"
