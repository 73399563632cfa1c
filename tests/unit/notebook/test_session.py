"""Tests of `notebook.session`: the connection that cells share, and what is shown of calls and renewals."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePath

import pytest

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    ServerUnavailable,
    TokenStoreError,
    UnsupportedRequest,
)
from micromegas_jupyter.notebook.login.connections import SettingsChoice
from micromegas_jupyter.notebook.login.dependencies import FlowToUse
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityState, IdentityStatus
from tests.fakes.notebook_people import FakeIdentity, FakePersonalProvider, FakeServiceProvider
from tests.fakes.notebook_world import SETTINGS, FakeWorld
from tests.unit.notebook.session_cases import WITHOUT_SIGN_IN, shown


def test_one_connection_serves_all_cells_of_the_same_settings(world: FakeWorld, session: NotebookSession) -> None:
    first, second = session.connection(SETTINGS), session.connection(SETTINGS)

    assert first is second
    assert len(world.clients) == 1


def test_without_a_configured_sign_in_the_client_has_no_provider(world: FakeWorld, session: NotebookSession) -> None:
    assert session.connection(WITHOUT_SIGN_IN).provider is None
    assert session.signed_in(WITHOUT_SIGN_IN).status is IdentityStatus.NOT_CONFIGURED


def test_being_signed_in_means_having_a_token_that_is_good(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    world.stored.failure = LoginRequired("The provider ended the session.")

    with pytest.raises(LoginRequired):
        session.signed_in(SETTINGS)

    assert shown(session) is IdentityStatus.EXPIRED
    assert world.clients[0].is_closed


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (LoginRequired("The session has ended."), IdentityStatus.EXPIRED),
        (ProviderUnavailable("id.example.com did not answer in 10 s."), IdentityStatus.RENEWAL_FAILED),
        (ServerUnavailable("lake.example.com does not answer."), IdentityStatus.OFFLINE),
        (InvalidStatement("No such column."), IdentityStatus.SIGNED_IN),
    ],
)
def test_what_is_shown_follows_from_a_call_that_failed(
    session: NotebookSession, error: MicromegasError, status: IdentityStatus
) -> None:
    session.signed_in(SETTINGS)

    session.note_failure(SETTINGS, error)

    assert shown(session) is status


def test_a_failure_makes_nobody_signed_in_who_was_not(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    session.note_failure(SETTINGS, ServerUnavailable("No answer."))
    session.signed_in(WITHOUT_SIGN_IN)
    session.note_failure(WITHOUT_SIGN_IN, ServerUnavailable("No answer."))

    assert shown(session) is IdentityStatus.NOT_CONFIGURED


def test_a_query_that_worked_does_not_fail_for_a_sign_in_that_cannot_be_read(
    world: FakeWorld, session: NotebookSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_self):
        raise LoginRequired("The sign-in has no ID token.")

    session.signed_in(SETTINGS)
    monkeypatch.setattr(FakePersonalProvider, "identity", unreadable)

    session.note_success(SETTINGS, world.stored)

    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_call_that_works_again_clears_the_trouble_and_keeps_what_the_server_said(
    world: FakeWorld, session: NotebookSession
) -> None:
    session.fetch_identity(SETTINGS)
    session.note_failure(SETTINGS, ProviderUnavailable("No answer."))

    session.note_success(SETTINGS, world.stored)

    assert session.state is not None
    assert (session.state.status, session.state.detail) == (IdentityStatus.SIGNED_IN, "")
    assert (session.state.is_admin, session.state.server_line) == (True, "connected as alice@example.com, 14 ms")


def test_calls_with_other_settings_change_nothing_that_is_shown(session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    other = replace(SETTINGS, profile="other")

    session.note_failure(other, ServerUnavailable("No answer."))
    session.note_success(other, None)

    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_server_that_cannot_say_whom_it_sees_is_connected_all_the_same(
    world: FakeWorld, session: NotebookSession
) -> None:
    world.whoami_failure = UnsupportedRequest("The server cannot say who you are.")

    state = session.fetch_identity(SETTINGS)

    assert state.status is IdentityStatus.SIGNED_IN
    assert state.server_line == "connected; the server does not say as whom, 14 ms"


def test_a_service_account_and_an_api_key_are_named_as_what_they_are(
    world: FakeWorld, session: NotebookSession
) -> None:
    world.stored = FakeServiceProvider()
    key_settings = replace(WITHOUT_SIGN_IN, api_key_file=PurePath("key"))

    assert session.signed_in(SETTINGS).name == "service account lake-notebooks"
    assert session.signed_in(key_settings).name == "the holder of an API key"


def test_an_address_that_stands_for_the_name_is_not_said_twice(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = FakePersonalProvider(FakeIdentity(name=None, email="eve@example.com"))

    state = session.signed_in(SETTINGS)

    assert (state.name, state.email) == ("eve@example.com", None)


def test_a_foreign_name_is_written_out_and_cut(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = FakePersonalProvider(FakeIdentity(name="\x1b[2J" + "e" * 500))

    name = session.signed_in(SETTINGS).name

    assert name == "\\x1b[2J" + "e" * 112 + "…"


def test_whoever_the_tokens_do_not_name_sees_that_a_call_works_again(
    world: FakeWorld, session: NotebookSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unnamed(_self):
        raise LoginRequired("The tokens do not say who is signed in.")

    monkeypatch.setattr(FakePersonalProvider, "identity", unnamed)
    session.signed_in(SETTINGS)
    session.note_failure(SETTINGS, ProviderUnavailable("No answer."))

    session.note_success(SETTINGS, world.stored)

    assert shown(session) is IdentityStatus.SIGNED_IN


def test_a_wrappers_client_is_said_to_be_used(world: FakeWorld, session: NotebookSession) -> None:
    world.has_wrapper = True
    world.whoami_failure = UnsupportedRequest("The wrapper's client cannot ask who you are.")

    signed_in, asked = session.signed_in(WITHOUT_SIGN_IN), session.fetch_identity(WITHOUT_SIGN_IN)

    assert signed_in.status is asked.status is IdentityStatus.WRAPPED
    assert asked.server_line == ""
    assert session.logout(WITHOUT_SIGN_IN) == "There is no sign-in to end: the wrapper's client is used."


def test_a_wrappers_client_that_can_ask_tells_whom_the_server_sees(world: FakeWorld, session: NotebookSession) -> None:
    world.has_wrapper = True

    state = session.fetch_identity(WITHOUT_SIGN_IN)

    assert (state.status, state.server_line) == (IdentityStatus.WRAPPED, "connected as alice@example.com, 14 ms")


def test_a_chosen_profile_serves_later_cells(world: FakeWorld, session: NotebookSession) -> None:
    session.choice = SettingsChoice(profile="prod")

    session.settings()
    session.settings("dev")

    assert world.profiles == ["prod", "dev"]


def test_other_errors_of_the_token_store_pass(world: FakeWorld) -> None:
    def broken(_settings):
        raise TokenStoreError("The token file belongs to somebody else.")

    session = NotebookSession(replace(world.dependencies(), stored_provider=broken))

    with pytest.raises(TokenStoreError):
        session.connection(SETTINGS)


def test_a_renewal_is_shown_without_a_cell(world: FakeWorld, session: NotebookSession) -> None:
    session.fetch_identity(SETTINGS)
    provider = world.stored
    provider._identity = replace(provider._identity, expires_at=datetime(2026, 11, 24, 16, 42, tzinfo=UTC))

    world.renewals[0].on_change(None)

    assert session.state is not None
    assert session.state.ends_at == datetime(2026, 11, 24, 16, 42, tzinfo=UTC)
    assert session.state.server_line == "connected as alice@example.com, 14 ms"


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (ProviderUnavailable("No answer."), IdentityStatus.RENEWAL_FAILED, "Could not renew: No answer."),
        (LoginRequired("The session has ended."), IdentityStatus.EXPIRED, "The session has ended."),
    ],
)
def test_a_renewal_that_fails_is_shown_and_cuts_no_query_off(
    world: FakeWorld, session: NotebookSession, error: MicromegasError, status: IdentityStatus, detail: str
) -> None:
    session.signed_in(SETTINGS)

    world.renewals[0].on_change(error)

    assert session.state is not None
    assert (session.state.status, session.state.detail) == (status, detail)
    assert not world.clients[0].is_closed
    assert world.renewals[0].is_running


def test_a_renewal_that_works_again_clears_the_trouble(world: FakeWorld, session: NotebookSession) -> None:
    session.signed_in(SETTINGS)
    world.renewals[0].on_change(LoginRequired("The session has ended."))

    world.renewals[0].on_change(None)

    assert shown(session) is IdentityStatus.SIGNED_IN


@pytest.mark.parametrize("ask", [NotebookSession.signed_in, NotebookSession.fetch_identity])
def test_whoever_the_tokens_do_not_name_is_signed_in_all_the_same(
    session: NotebookSession,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[NotebookSession, ClientSettings], IdentityState],
) -> None:
    def unnamed(_self):
        raise LoginRequired("The tokens do not say who is signed in.")

    monkeypatch.setattr(FakePersonalProvider, "identity", unnamed)

    state = ask(session, SETTINGS)

    assert (state.status, state.name) == (IdentityStatus.SIGNED_IN, "")
    assert session.connection(SETTINGS) is session.connection(SETTINGS)
