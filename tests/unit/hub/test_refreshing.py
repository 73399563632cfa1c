from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.hub.refresh import (
    FAILURE_PAUSE_SECONDS,
    MAX_PAUSES,
    REFUSED_KEY,
    STALE_KEY,
    AuthStateRefresher,
)
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, NOW, mint

MARGIN = 60.0


class ProviderSaid(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, body: bytes) -> None:
        super().__init__("no")
        self.code = code
        self.response = type("Response", (), {"body": body})


class Authenticator:
    """As much of OAuthenticator as the hook uses; answers each renewal with the next answer, which may be an error."""

    manage_groups = False
    user_auth_state_key = "oauth_user"

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []

    def build_refresh_token_request_params(self, refresh_token: str) -> dict[str, str]:
        return {"refresh_token": refresh_token}

    async def get_token_info(self, _handler: None, fields: dict[str, str]) -> dict[str, Any]:
        self.sent.append(fields["refresh_token"])
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def token_to_user(self, token_info: dict[str, Any]) -> dict[str, Any]:
        return {"groups": token_info["groups"]}

    async def get_user_groups(self, state: dict[str, Any]) -> set[str]:
        return set(state["oauth_user"]["groups"])


class User:
    """As much of the Hub's user as the hook uses."""

    name = "alice"

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state

    async def get_auth_state(self) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        return self.state

    async def save_auth_state(self, state: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.state = state


def kept(expires_in: float, **members: Any) -> dict[str, Any]:
    state = {
        "id_token": mint(expires_in=expires_in, iat=int(NOW.timestamp()) - 600),
        "access_token": "old access",
        "refresh_token": "old refresh",
        "scope": ["openid"],
        "token_response": {"id_token": "…"},
    }
    return {**state, **members}


def renewed(**members: Any) -> dict[str, Any]:
    answer = {"id_token": mint(expires_in=900), "access_token": "new access", "refresh_token": "new refresh"}
    return {**answer, **members}


def refresh(authenticator: Authenticator, user: User, *, times: int = 1) -> list[Any]:
    hook = AuthStateRefresher(Bearer.ID_TOKEN, margin_seconds=MARGIN, clock=FakeClock(NOW))

    async def run() -> list[Any]:
        return list(await asyncio.gather(*(hook(authenticator, user, user.state) for _each in range(times))))

    return asyncio.run(run())


def refusing(error: str, *, status: int = 400) -> ProviderSaid:
    return ProviderSaid(status, json.dumps({"error": error}).encode())


def test_a_token_with_time_left_is_left_alone() -> None:
    authenticator = Authenticator()

    assert refresh(authenticator, User(kept(MARGIN + 1))) == [True]
    assert authenticator.sent == []


def test_a_token_below_the_margin_is_renewed_and_all_new_tokens_are_kept() -> None:
    user, answer = User(kept(MARGIN - 1)), renewed(scope="openid lake")

    assert refresh(Authenticator(answer), user) == [True]
    assert user.state == {
        "id_token": answer["id_token"],
        "access_token": "new access",
        "refresh_token": "new refresh",
        "scope": ["openid", "lake"],
        "token_response": answer,
        STALE_KEY: False,
    }


def test_many_who_ask_at_once_use_the_refresh_token_once() -> None:
    authenticator = Authenticator(renewed())

    assert refresh(authenticator, User(kept(1)), times=50) == [True] * 50
    assert authenticator.sent == ["old refresh"]


def test_an_answer_without_new_refresh_and_id_tokens_keeps_the_old_ones() -> None:
    user = User(kept(1))
    old_id_token = user.state["id_token"]  # type: ignore[index]  # it is one

    refresh(Authenticator({"access_token": "new access"}), user)

    assert user.state is not None
    assert (user.state["refresh_token"], user.state["id_token"]) == ("old refresh", old_id_token)
    assert user.state["token_response"]["refresh_token"] == "old refresh"


@pytest.mark.parametrize("brought", [(), ("id_token",)], ids=["none", "the old one"])
def test_a_renewal_without_a_new_token_is_marked_and_not_tried_at_each_call(
    brought: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    state = kept(1)
    user = User(state)
    authenticator = Authenticator({"access_token": "new access", **{name: state[name] for name in brought}})

    assert refresh(authenticator, user, times=20) == [True] * 20
    assert authenticator.sent == ["old refresh"]
    assert user.state is not None
    assert user.state[STALE_KEY] is True
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "The sign-in of alice was refreshed without a new id_token."
    ]


@pytest.mark.parametrize("expires_in", [1, -5], ids=["no longer", "ended"])
def test_a_new_token_that_lasts_no_longer_is_not_said_to_be_missing_and_not_tried_at_each_call(
    expires_in: int, caplog: pytest.LogCaptureFixture
) -> None:
    new = mint(expires_in=expires_in)
    user, authenticator = User(kept(1)), Authenticator(renewed(id_token=new))

    assert refresh(authenticator, user, times=20) == [True] * 20
    assert authenticator.sent == ["old refresh"]
    assert user.state is not None
    assert (user.state["id_token"], user.state[STALE_KEY]) == (new, False)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_the_mark_goes_when_a_newer_token_comes() -> None:
    user = User(kept(1, **{STALE_KEY: True}))

    refresh(Authenticator(renewed()), user)

    assert user.state is not None
    assert user.state[STALE_KEY] is False


@pytest.mark.parametrize("audience", [["lake", AUDIENCE], [AUDIENCE]])
def test_a_renewal_may_add_an_audience(audience: list[str]) -> None:
    user, answer = User(kept(1)), renewed(id_token=mint(expires_in=900, audience=audience))

    assert refresh(Authenticator(answer), user) == [True]
    assert user.state is not None
    assert user.state["id_token"] == answer["id_token"]


def test_a_renewal_may_take_no_audience_away() -> None:
    issued_at = int(NOW.timestamp()) - 600
    state = kept(1, id_token=mint(expires_in=1, iat=issued_at, audience=["hub", "lake"]))

    assert refresh(Authenticator(renewed(id_token=mint(audience=["lake"]))), User(state)) == [False]


def test_half_of_a_short_life_is_margin_enough() -> None:
    authenticator = Authenticator()
    state = kept(0, id_token=mint(expires_in=10, iat=int(NOW.timestamp()) - 2))

    assert refresh(authenticator, User(state)) == [True]
    assert authenticator.sent == []


def test_a_refusal_ends_the_sign_in_and_the_refresh_token_is_not_sent_again() -> None:
    user, authenticator = User(kept(1)), Authenticator(refusing("invalid_grant"))

    assert refresh(authenticator, user) == [False]
    assert refresh(authenticator, user) == [False]
    assert authenticator.sent == ["old refresh"]
    assert user.state is not None
    assert (user.state["refresh_token"], user.state[REFUSED_KEY]) == (None, True)


@pytest.mark.parametrize(
    "error",
    [
        refusing("temporarily_unavailable"),
        refusing("invalid_client", status=401),
        refusing("server_error", status=503),
        ProviderSaid(502, b"<html>"),
        ProviderSaid(400, b"<html>"),
        ProviderSaid(599, b""),
        TimeoutError(),
        OSError("no route"),
    ],
    ids=["passing", "client", "server", "gateway", "no JSON", "no answer", "time", "network"],
)
def test_what_is_no_refusal_costs_nobody_the_sign_in(error: Exception) -> None:
    user = User(kept(1))

    assert refresh(Authenticator(error), user) == [True]
    assert user.state is not None
    assert user.state["refresh_token"] == "old refresh"


@pytest.mark.parametrize("claims", [{"subject": "mallory"}, {"issuer": "https://evil.example"}, {"audience": "other"}])
def test_a_token_for_somebody_or_something_else_ends_the_sign_in(claims: dict[str, Any]) -> None:
    user = User(kept(1))

    assert refresh(Authenticator(renewed(id_token=mint(**claims))), user) == [False]
    assert user.state is not None
    assert "new access" not in user.state.values()


@pytest.mark.parametrize("state", [None, {}, kept(1, refresh_token=None), kept(1, id_token="opaque")])
def test_what_cannot_be_renewed_is_left_to_oauthenticator_now_and_then(state: dict[str, Any] | None) -> None:
    assert refresh(Authenticator(), User(state), times=3) == [None, True, True]


def test_without_a_refresh_token_a_token_with_time_left_is_left_alone() -> None:
    assert refresh(Authenticator(), User(kept(MARGIN + 1, refresh_token=None))) == [True]


def test_who_asks_while_the_provider_does_not_answer_waits_for_one_try_only() -> None:
    user, authenticator = User(kept(1)), Authenticator(TimeoutError())

    assert refresh(authenticator, user, times=20) == [True] * 20
    assert authenticator.sent == ["old refresh"]


def test_after_a_pause_it_is_tried_again() -> None:
    user, authenticator, clock = User(kept(1)), Authenticator(TimeoutError(), renewed()), FakeClock(NOW)
    hook = AuthStateRefresher(Bearer.ID_TOKEN, margin_seconds=MARGIN, clock=clock)

    async def run() -> None:
        for _each in range(2):
            await hook(authenticator, user, None)
            clock.advance(FAILURE_PAUSE_SECONDS)

    asyncio.run(run())

    assert authenticator.sent == ["old refresh", "old refresh"]
    assert user.state is not None
    assert user.state["refresh_token"] == "new refresh"


def test_no_more_people_are_remembered_than_the_limit() -> None:
    hook = AuthStateRefresher(Bearer.ID_TOKEN, margin_seconds=MARGIN, clock=FakeClock(NOW))

    async def run() -> None:
        for number in range(MAX_PAUSES + 5):
            user = User(None)
            user.name = f"person {number}"
            await hook(Authenticator(), user, None)

    asyncio.run(run())

    assert len(hook._pauses) == MAX_PAUSES


def test_groups_follow_the_provider_where_the_hub_manages_them() -> None:
    authenticator, user = Authenticator(renewed(groups=["b", "a"])), User(kept(1))
    authenticator.manage_groups = True

    assert refresh(authenticator, user) == [{"name": "alice", "admin": None, "groups": ["a", "b"]}]
    assert user.state is not None
    assert (user.state["refresh_token"], user.state["oauth_user"]) == ("new refresh", {"groups": ["b", "a"]})


def test_groups_stay_when_they_cannot_be_read_and_the_new_tokens_are_kept() -> None:
    authenticator, user = Authenticator(renewed()), User(kept(1))
    authenticator.manage_groups = True

    assert refresh(authenticator, user) == [{"name": "alice", "admin": None, "groups": None}]
    assert user.state is not None
    assert user.state["refresh_token"] == "new refresh"
