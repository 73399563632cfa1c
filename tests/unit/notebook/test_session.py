from dataclasses import replace
from pathlib import PurePath

import pytest

from micromegas_jupyter.errors import (
    InvalidStatement,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderUnavailable,
    ServerUnavailable,
    TokenStoreError,
    UnsupportedRequest,
)
from micromegas_jupyter.notebook.connections import Connections
from micromegas_jupyter.notebook.identity_state import IdentityStatus
from micromegas_jupyter.notebook.session import NotebookSession
from tests.fakes.notebook_parts import (
    SETTINGS,
    START_URL,
    FakeIdentity,
    FakePersonalProvider,
    FakeServiceProvider,
    FakeWorld,
)

WITHOUT_SIGN_IN = replace(SETTINGS, issuer=None, client_id=None)


@pytest.fixture
def session(world: FakeWorld) -> NotebookSession:
    return NotebookSession(world.parts())


def shown(session: NotebookSession) -> IdentityStatus | None:
    return None if session.state is None else session.state.status


def test_one_connection_serves_all_cells_of_the_same_settings(world: FakeWorld, session: NotebookSession) -> None:
    first, second = session.connection(SETTINGS), session.connection(SETTINGS)

    assert first is second
    assert len(world.clients) == 1


def test_nobody_signed_in_is_said_with_the_server_and_the_remedy(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None

    with pytest.raises(LoginRequired) as required:
        session.connection(SETTINGS)

    assert str(required.value) == (
        "You are not signed in to lake.example.com:50051. "
        "Run %micromegas_login (or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account)."
    )


def test_without_a_configured_sign_in_the_client_has_no_provider(world: FakeWorld, session: NotebookSession) -> None:
    assert session.connection(WITHOUT_SIGN_IN).provider is None
    assert session.signed_in(WITHOUT_SIGN_IN).status is IdentityStatus.NOT_CONFIGURED


def test_a_running_sign_in_is_waited_for_and_its_provider_used(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    provider = FakePersonalProvider()
    login = session.begin_login(SETTINGS)

    connection = session.connection(SETTINGS, on_wait=lambda _: login.succeed(provider))

    assert connection.provider is provider
    assert len(world.clients) == 1


def test_a_sign_in_that_ends_by_itself_is_shown_and_kept(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    waiting = []
    session.subscribe(waiting.append)
    login = session.begin_login(SETTINGS)

    login.succeed()
    assert world.was_asked_whoami.wait(10)

    assert [state.status for state in waiting[:2]] == [IdentityStatus.WAITING, IdentityStatus.SIGNED_IN]
    assert (waiting[0].start_url, waiting[1].start_url) == (START_URL, None)
    assert session.connection(SETTINGS).provider is not None


def test_a_sign_in_for_other_settings_is_not_waited_for(world: FakeWorld, session: NotebookSession) -> None:
    login = session.begin_login(replace(SETTINGS, profile="other"))

    session.connection(SETTINGS)

    assert not login.waited_for.is_set()


def test_a_second_sign_in_takes_the_place_of_the_first(world: FakeWorld, session: NotebookSession) -> None:
    first = session.begin_login(SETTINGS)

    second = session.begin_login(SETTINGS)

    assert first.is_cancelled
    assert not second.is_cancelled
    assert shown(session) is IdentityStatus.WAITING


def test_a_sign_in_that_fails_is_told_to_the_cell_that_waits_and_then_forgotten(
    world: FakeWorld, session: NotebookSession
) -> None:
    world.stored = None
    login = session.begin_login(SETTINGS)

    with pytest.raises(LoginFailed):
        session.connection(SETTINGS, on_wait=lambda _: login.fail(LoginFailed("You said no.")))

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert session.state is not None
    assert session.state.detail == "You said no. Run %micromegas_login to try again."
    with pytest.raises(LoginRequired):
        session.connection(SETTINGS)


def test_an_interrupted_wait_leaves_the_sign_in_open(world: FakeWorld, session: NotebookSession) -> None:
    login = session.begin_login(SETTINGS)

    with pytest.raises(KeyboardInterrupt):
        session.connection(SETTINGS, on_wait=lambda _: login.interrupt_the_wait())

    assert not login.is_cancelled
    assert shown(session) is IdentityStatus.WAITING


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
    session.begin_login(SETTINGS)
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
    session.ask_server(SETTINGS)
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

    state = session.ask_server(SETTINGS)

    assert state.status is IdentityStatus.SIGNED_IN
    assert state.server_line == "connected, does not say as whom, 14 ms"


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


def test_logout_ends_the_sign_in_and_the_connection(world: FakeWorld, session: NotebookSession) -> None:
    session.connection(SETTINGS)

    line = session.logout(SETTINGS)

    assert line == "Signed out."
    assert world.stored.is_signed_out
    assert world.clients[0].is_closed
    assert shown(session) is IdentityStatus.SIGNED_OUT


def test_logout_ends_a_sign_in_that_goes_on(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    login = session.begin_login(SETTINGS)

    line = session.logout(SETTINGS)

    assert line == "Nobody was signed in to id.example.com."
    assert login.is_cancelled
    assert shown(session) is IdentityStatus.SIGNED_OUT


def test_logout_says_when_there_is_no_sign_in_to_end(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = FakeServiceProvider()

    assert session.logout(SETTINGS) == "There is no sign-in to end: a key or service account is used."
    assert session.logout(WITHOUT_SIGN_IN) == "There is no sign-in to end: none is configured."


def test_a_chosen_profile_serves_later_cells(world: FakeWorld, session: NotebookSession) -> None:
    session.choose_profile("prod")
    session.choose_profile(None)

    session.settings()
    session.settings("dev")

    assert world.profiles == ["prod", "dev"]


def test_closing_ends_a_sign_in_and_all_clients(world: FakeWorld, session: NotebookSession) -> None:
    session.connection(SETTINGS)
    login = session.begin_login(replace(SETTINGS, profile="other"))

    session.close()

    assert login.is_cancelled
    assert world.clients[0].is_closed


def test_at_most_eight_connections_are_kept(world: FakeWorld) -> None:
    connections = Connections(world.parts())

    for index in range(9):
        connections.get(replace(SETTINGS, profile=f"profile-{index}"))

    assert [client.is_closed for client in world.clients] == [True] + [False] * 8


def test_other_errors_of_the_token_store_pass(world: FakeWorld) -> None:
    def broken(_settings):
        raise TokenStoreError("The token file belongs to somebody else.")

    session = NotebookSession(replace(world.parts(), stored_provider=broken))

    with pytest.raises(TokenStoreError):
        session.connection(SETTINGS)


def test_a_sign_in_that_has_ended_already_still_tells_its_failure(session: NotebookSession) -> None:
    login = session.begin_login(SETTINGS)
    login.fail(LoginFailed("You said no."))

    with pytest.raises(LoginFailed, match="You said no"):
        session.finish_login(login)
