"""Who may call the service, how often, and the sign-ins that callers have begun."""

import asyncio
import json
import logging
from urllib.parse import urlencode

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS, Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.callers import (
    AUDIT_LOGGER,
    AUDIT_PAUSE_SECONDS,
    BURST_CALLS,
    BURST_UNKNOWN,
    SERVICE_SCOPES,
    UNKNOWN_SECONDS,
    CallerLimits,
    HubAudit,
    Refused,
    TokenOwner,
    check_caller,
    check_service_rights,
    client_address,
    refuse,
)
from micromegas_jupyter.hub.kernel_handlers import (
    LIFETIME_SECONDS,
    MAX_PER_OWNER,
    SignIns,
    check_authorization_url,
)

HERE = "192.0.2.1"
ANSWER = Secret("code=c&state=s")
ENDPOINT = "https://id.example.com/auth"
CALLBACK = "https://hub.example.com/services/micromegas/callback"
STATE = "s" * 43
PARAMETERS = {
    "response_type": "code",
    "client_id": "notebooks",
    "redirect_uri": CALLBACK,
    "state": STATE,
    "nonce": "n",
    "scope": "openid",
    "code_challenge": "c" * 43,
    "code_challenge_method": "S256",
}


def owner(*scopes, kind="user", name="alice"):
    return TokenOwner(kind=kind, name=name, scopes=frozenset(scopes))


@pytest.mark.parametrize(
    "scope",
    ["access:servers!server=alice/", "access:servers!server=alice/lab", "access:servers!user=alice", "access:servers"],
)
def test_a_token_that_may_use_a_server_of_the_person_gets_that_persons_tokens(scope):
    assert check_caller(owner("users:activity!user=alice", scope)) == "alice"


@pytest.mark.parametrize(
    ("caller", "error"),
    [
        (owner(), "not_their_server"),
        (owner("access:services!service=other"), "not_their_server"),
        # What the shared server of somebody else is given when alice looks at it.
        (owner("access:servers!server=bob/", "read:users:name!user=alice"), "not_their_server"),
        (owner("access:servers!user=bob"), "not_their_server"),
        (owner("access:servers!server=alice2/"), "not_their_server"),
        (owner("access:servers!server=alice/", "admin:auth_state!user=alice"), "dangerous_role"),
        (owner("access:servers!server=alice/", "admin:auth_state"), "dangerous_role"),
        (owner("access:servers!server=alice/", "admin:users"), "dangerous_role"),
        (owner("access:servers!server=alice/", "admin:users!user=a"), "dangerous_role"),
        (owner("access:servers", kind="service", name="culler"), "not_a_user"),
    ],
)
def test_any_other_token_gets_nothing(caller, error):
    with pytest.raises(Refused) as caught:
        check_caller(caller)

    assert (caught.value.status, caught.value.error) == (403, error)


@pytest.mark.parametrize(
    ("found", "key"),
    [
        *((owner(scope, kind="service"), "JupyterHub.load_roles") for scope in SERVICE_SCOPES),
        *(
            (owner(*SERVICE_SCOPES, more, kind="service"), "JupyterHub.load_roles")
            for more in ("tokens", "admin:users")
        ),
        (None, "JUPYTERHUB_API_TOKEN"),
        (owner(*SERVICE_SCOPES), "JUPYTERHUB_API_TOKEN"),
    ],
)
def test_the_service_starts_with_exactly_its_rights_and_as_nothing_else(found, key):
    check_service_rights(owner(*SERVICE_SCOPES, kind="service"))
    with pytest.raises(ConfigurationError) as caught:
        check_service_rights(found)

    assert caught.value.key == key


def without_waiting(call):
    """Return what a coroutine gives that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    return ended.value.value


class Asker:
    """Callers of a service whose Hub knows some tokens, each of the person of the same name."""

    def __init__(self, clock, *known):
        self.known = set(known)
        self.asked = []
        self.is_down = False
        self._limits = CallerLimits(audit=HubAudit(clock=clock), clock=clock)

    async def _ask_hub(self, token):
        text = token.reveal()
        self.asked.append(text)
        if self.is_down:
            raise refuse("hub_unavailable")
        return TokenOwner(kind="user", name=text, scopes=frozenset()) if text in self.known else None

    def call(self, token, address=HERE):
        """Return whose the token is, or why it is nobody's."""
        secret = None if token is None else Secret(token)
        try:
            return without_waiting(self._limits.fetch_owner(secret, address=address, fetch=self._ask_hub)).name
        except Refused as refused:
            self.refused = refused
            return refused.error

    def flood(self, count, *, addresses=1):
        """Call with tokens that nobody knows."""
        return [self.call(f"random {number}", f"198.51.100.{number % addresses}") for number in range(count)]


def test_a_flood_of_random_tokens_from_one_address_does_not_reach_the_hub_and_is_told_when_to_come_back(
    clock,
):
    asker = Asker(clock)

    answers = asker.flood(BURST_UNKNOWN + 50)

    assert answers == ["invalid_token"] * BURST_UNKNOWN + ["slow_down"] * 50
    assert len(asker.asked) == BURST_UNKNOWN
    assert (asker.refused.status, asker.refused.retry_after_seconds) == (429, 1)
    clock.advance(1)
    assert asker.flood(1) == ["invalid_token"]


def test_whoever_was_let_in_before_is_let_in_during_a_flood_from_the_same_address(clock):
    asker = Asker(clock, "alice", "bob")
    asker.call("alice", "198.51.100.0")

    asker.flood(BURST_UNKNOWN + 1)

    assert asker.call("alice", "198.51.100.0") == "alice"
    assert asker.call("bob", "198.51.100.0") == "slow_down"
    assert asker.call("bob", "198.51.100.7") == "bob"


def test_a_token_that_the_hub_has_withdrawn_is_worth_nothing_at_once_and_is_asked_about_again_after_a_while(clock):
    asker = Asker(clock, "alice")
    asker.call("alice")

    asker.known.clear()

    assert [asker.call("alice") for _each in range(3)] == ["invalid_token"] * 3
    assert asker.asked == ["alice"] * 2
    asker.known.add("alice")
    clock.advance(UNKNOWN_SECONDS)
    assert asker.call("alice") == "alice"


def test_a_person_who_calls_too_often_does_not_reach_the_hub(clock):
    asker = Asker(clock, "alice")

    answers = [asker.call("alice") for _each in range(BURST_CALLS + 10)]

    assert set(answers[: BURST_CALLS - 1]) == {"alice"}
    assert answers[-1] == "slow_down"
    assert len(asker.asked) <= BURST_CALLS


def test_a_hub_that_does_not_answer_is_no_callers_fault(clock):
    asker = Asker(clock, "alice")
    asker.is_down = True
    assert {asker.call(f"token {number}") for number in range(BURST_UNKNOWN * 2)} == {"hub_unavailable"}

    asker.is_down = False

    assert asker.call("alice") == "alice"


def test_calls_without_a_token_count_and_the_audit_log_is_told_seldom(clock, caplog):
    asker = Asker(clock)
    with caplog.at_level(logging.INFO, logger=AUDIT_LOGGER):
        for _each in range(BURST_UNKNOWN + 5):
            asker.call(None)
        clock.advance(AUDIT_PAUSE_SECONDS)
        for _each in range(BURST_UNKNOWN + 5):
            asker.call(None)

    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == AUDIT_LOGGER]
    assert [(line["event"], line["client_ip"]) for line in lines] == [("calls_turned_away", HERE)] * 2
    assert [line["calls"] for line in lines] == [1, 5]
    assert asker.asked == []


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", ["192.0.2.9"], "192.0.2.9"),
        ("127.0.0.1", ["203.0.113.5, 192.0.2.9"], "192.0.2.9"),
        ("127.0.0.1", ["203.0.113.5", "192.0.2.9"], "192.0.2.9"),
        ("::1", ["2001:db8::9"], "2001:db8::9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.9, who knows"], "127.0.0.1"),
        ("10.0.0.3", ["192.0.2.9"], "10.0.0.3"),
    ],
    ids=["proxy", "forged before", "two headers", "IPv6", "direct", "no address", "another machine"],
)
def test_only_what_a_proxy_on_this_machine_saw_counts(peer, forwarded, address):
    headers = HTTPHeaders({"Host": "hub"})
    for value in forwarded:
        headers.add("X-Forwarded-For", value)
    request = HTTPServerRequest(start_line=RequestStartLine("POST", "/", "HTTP/1.1"), headers=headers)
    request.remote_ip = peer

    assert client_address(request) == address


@pytest.fixture
def sign_ins(clock):
    return SignIns(clock=clock, randomness=SYSTEM_RANDOMNESS)


def begin(sign_ins, state="state", *, owner="alice"):
    return sign_ins.begin(owner, state=state, authorization_url=Secret("https://id.example.com/auth"))


def test_who_begins_too_many_loses_the_oldest_and_nobody_else_does_and_all_end_after_ten_minutes(sign_ins, clock):
    theirs = begin(sign_ins, "bobs", owner="bob")
    first = begin(sign_ins, "first")

    for number in range(MAX_PER_OWNER):
        begin(sign_ins, f"state {number}")

    assert sign_ins.by_name(first.name) is None
    assert sign_ins.by_name(theirs.name) is theirs
    assert len(sign_ins) == MAX_PER_OWNER + 1
    clock.advance(LIFETIME_SECONDS)
    assert (sign_ins.by_name(theirs.name), sign_ins.by_state("bobs"), len(sign_ins)) == (None, None, 0)


def test_an_answer_is_given_once(sign_ins):
    async def run():
        sign_in = begin(sign_ins)
        waiting = [asyncio.create_task(sign_ins.take_answer(sign_in, timeout_seconds=60)) for _each in range(3)]
        await asyncio.sleep(0)
        sign_ins.hand_over(sign_in, ANSWER)
        return list(await asyncio.gather(*waiting))

    assert sorted(map(str, asyncio.run(run()))) == ["None", "None", "Secret(***)"]
    assert len(sign_ins) == 0


def authorization_url(base=ENDPOINT, **changes):
    parameters = {name: value for name, value in {**PARAMETERS, **changes}.items() if value is not None}
    return f"{base}?{urlencode(parameters)}"


def checked(url, *, endpoint=ENDPOINT):
    return check_authorization_url(url, endpoint=endpoint, redirect_uri=CALLBACK, client_id="notebooks")


def test_the_hubs_own_sign_in_is_let_through_also_where_the_endpoint_has_parameters_of_its_own():
    endpoint = f"{ENDPOINT}?p=sign-in"

    assert checked(authorization_url()) == STATE
    assert checked(authorization_url(p="sign-in"), endpoint=endpoint) == STATE
    for url in (authorization_url(), authorization_url(p="other")):
        with pytest.raises(Refused):
            checked(url, endpoint=endpoint)


@pytest.mark.parametrize(
    "url",
    [
        None, 7, "", "javascript:alert(1)",
        *(authorization_url(base) for base in (
            "https://evil.example/auth", "https://id.example.com/auth/../evil",
            "https://id.example.com@evil.example/auth", "http://id.example.com/auth")),
        *(authorization_url() + more for more in (
            "#fragment", f"&state={STATE}", "&redirect_uri=https://evil.example/", "&a=1" * 60)),
        *(authorization_url(**change) for change in (
            {"padding": "x" * 20_000}, {"redirect_uri": "https://hub.example.com/user/bob/micromegas/callback"},
            {"redirect_uri": CALLBACK + "/"}, {"client_id": "other"}, {"response_type": "code token"},
            {"response_mode": "fragment"}, {"request": "ey"}, {"request_uri": "https://evil.example/"},
            {"code_challenge_method": "plain"}, {"code_challenge_method": None}, {"code_challenge": "short"},
            {"state": "s" * 42}, {"state": "s" * 42 + " "}, {"state": None})),
    ],
    ids=range(26),
)  # fmt: skip
def test_everything_else_is_refused(url):
    with pytest.raises(Refused) as caught:
        checked(url)

    assert (caught.value.status, caught.value.error) == (400, "invalid_sign_in")
    assert "evil" not in str(caught.value)
