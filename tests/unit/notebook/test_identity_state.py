from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.notebook.login.state import (
    IdentityState,
    IdentityStatus,
    SignInOffer,
    identity_lines,
    lines_as_html,
)
from tests.fakes.notebook_world import SCAN_URI, USER_CODE, VERIFICATION_URI

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
        (
            {"through": "JupyterHub"},
            (
                "Signed in through JupyterHub as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC, "
                "renews by itself."
            ),
        ),
        ({"status": IdentityStatus.SIGNED_OUT}, "Not signed in at id.example.com (for lake.example.com)."),
        (
            {"status": IdentityStatus.EXPIRED},
            "The sign-in at id.example.com (for lake.example.com) has ended. Run %micromegas_login.",
        ),
        (
            {"status": IdentityStatus.RENEWAL_FAILED},
            "Signed in as Alice Martin (alice@example.com) at id.example.com until 15:42 UTC.",
        ),
        ({"status": IdentityStatus.SIGNED_OUT, "issuer": ""}, "Not signed in (for lake.example.com)."),
        ({"name": "", "email": None, "ends_at": None, "renews": False}, "Signed in at id.example.com."),
        (
            {"status": IdentityStatus.WRAPPED, "issuer": ""},
            (
                "The wrapper's client is used (MICROMEGAS_PYTHON_MODULE_WRAPPER is set). It signs in by itself; "
                "signing in here would change nothing."
            ),
        ),
        (
            {"status": IdentityStatus.NOT_CONFIGURED},
            "No sign-in is configured; lake.example.com is used without one.",
        ),
        (
            {"status": IdentityStatus.WAITING, "offer": SignInOffer(flow=Flow.BROWSER, address="http://127.0.0.1:4/x")},
            "Sign in at id.example.com: open http://127.0.0.1:4/x until 15:42 UTC. This notebook continues by itself.",
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


def test_what_somebody_may_do_is_said_once_the_server_has_answered() -> None:
    groups = tuple(f"group{number}" for number in range(40))
    unknown = replace(ALICE, is_admin=True, groups=groups, group_count=250)

    answered = replace(unknown, server_line="connected as alice, 14 ms")

    assert len(identity_lines(unknown, now=NOW)) == 1
    rights = identity_lines(answered, now=NOW)[2]
    assert rights.startswith("admin · groups: group0, group1, ")
    assert rights.endswith(", group31, and 218 more")


def test_the_time_until_the_renewal_is_known_where_there_is_one() -> None:
    renewed = replace(ALICE, renews_at=NOW + timedelta(minutes=5))

    assert renewed.seconds_until_renewal(NOW) == 300.0
    assert renewed.seconds_until_renewal(NOW + timedelta(hours=1)) == 0.0
    assert replace(renewed, renews=False).seconds_until_renewal(NOW) is None
    assert ALICE.seconds_until_renewal(NOW) is None


def test_the_remaining_time_never_runs_below_zero() -> None:
    assert ALICE.remaining_seconds(NOW) == 3 * 3600 + 42 * 60
    assert ALICE.remaining_seconds(NOW + timedelta(days=1)) == 0.0
    assert replace(ALICE, ends_at=None).remaining_seconds(NOW) is None


def test_html_has_a_link_that_opens_a_page_of_its_own() -> None:
    html = lines_as_html(["<one>", "two"], offer=SignInOffer(flow=Flow.BROWSER, address="http://127.0.0.1:4/x?a=1&b=2"))

    assert html == (
        '<p>&lt;one&gt;<br>two<br><a href="http://127.0.0.1:4/x?a=1&amp;b=2" target="_blank" '
        'rel="noopener noreferrer">Sign in</a></p>'
    )


def test_html_of_a_code_has_no_picture_and_no_link_that_holds_the_code() -> None:
    offer = SignInOffer(flow=Flow.DEVICE, address=VERIFICATION_URI, user_code=USER_CODE, scan_address=SCAN_URI)

    html = lines_as_html(["one"], offer=offer)

    assert html == (
        f'<p>one<br><a href="{VERIFICATION_URI}" target="_blank" rel="noopener noreferrer">Open the page</a></p>'
    )


def test_html_without_an_address_has_no_link() -> None:
    assert lines_as_html(["one"], offer=SignInOffer(flow=Flow.BROWSER, address="")) == "<p>one</p>"
    assert lines_as_html(["one"]) == "<p>one</p>"
