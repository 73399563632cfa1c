"""What a person may paste: any text is refused with a remedy, and only this sign-in's own answer is taken."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from micromegas_jupyter.auth.flows.base import LoginRequest
from micromegas_jupyter.auth.flows.paste import PasteFlow
from micromegas_jupyter.auth.provider import start_flow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import UsageError
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider

CLOCK = FakeClock(datetime(2026, 11, 24, 12, tzinfo=UTC))
IDP = ScriptedProvider(clock=CLOCK)
CONNECTION = ProviderConnection(IDP.issuer, "notebook", None, http=DirectCalls(IDP), clock=CLOCK)

ADDRESS_LIKE = st.lists(
    st.sampled_from(
        ["http://127.0.0.1:48080/callback", "?", "&", "=", "#", "code", "state", "iss", "error", "%", " ", '"']
    )
    | st.text(max_size=5),
    max_size=12,
).map("".join)
BLANKS = st.text(alphabet=" \t\r\n", max_size=3)


def start():
    login = start_flow(Flow.PASTE, LoginRequest(connection=CONNECTION))
    assert isinstance(login, PasteFlow)
    return login


def address_of(login, **further):
    asked = dict(parse_qsl(urlsplit(login.prompt.start_url or "").query))
    return f"{asked['redirect_uri']}?{urlencode({'code': 'c', 'state': asked['state'], 'iss': IDP.issuer, **further})}"


@given(ADDRESS_LIKE | st.text(max_size=200))
@example("?" * 20_000)
@example("\ud800")
def test_any_other_text_is_refused_with_a_remedy(text):
    with pytest.raises(UsageError) as caught:
        start().submit(text)

    assert "paste the whole address" in caught.value.remedy


@given(BLANKS, BLANKS, st.integers(min_value=0, max_value=60), st.sampled_from(["", '"', "'", "`"]))
def test_the_own_answer_is_taken_however_it_was_broken_or_quoted(before, after, break_at, quote):
    login = start()
    address = address_of(login)

    login.submit(f"{before}{quote}{address[:break_at]}\n{address[break_at:]}{quote}{after}")

    with pytest.raises(UsageError, match="no longer accepts"):
        login.submit(address)
