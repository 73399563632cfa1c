"""Exactly one credential reaches the validator, refusals leave events, limits count; headers become what they mean."""

import asyncio
import base64
import json
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime

import pytest

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.access.oidc import OidcValidator
from micromegas_jupyter.access.validator import CallLimits, MultiValidator
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import PermissionDenied, Rejected, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.server import authentication
from micromegas_jupyter.server.authentication import Attribution, parse_statement, resolve_attribution
from tests.fakes.mint import AUDIENCE, ISSUER, mint
from tests.fakes.provider import FakeProvider
from tests.fakes.tracebacks import verbose_traceback
from tests.fakes.validator import ALICE, BOB, SERVICE, FakeValidator

OTHER_ISSUER = "https://other.example.com"
CALL = CallFacts(method="/x/DoGet", client_address="192.0.2.7", call_id="q-1")


def slow_validator(release):
    """Return a validator that answers once it is released."""
    validator = FakeValidator()
    validator.validate_token = lambda _token: release.wait(60) and ALICE
    return validator


def open_authenticator(validator, *, check_seconds=10.0, limits=None):
    return closing(authentication.Authenticator(validator, check_seconds=check_seconds, limits=limits))


def access_events(caplog):
    return [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]


def bearer(token):
    return {"authorization": (f"Bearer {token}",)}


def basic(text):
    return {"authorization": ("Basic " + base64.b64encode(text.encode()).decode(),)}


def authenticate(authenticator, *values):
    headers = {"authorization": values} if values else {}
    return asyncio.run(authenticator.authenticate(headers, lambda: CALL))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((), "missing"), (("Bearer alice", "Bearer alice"), "several"),
        *(((value,), "malformed") for value in (
            "alice", "Bearer", "Bearer  alice", "Bearer alice bob", "Bearer älice", "Bearer alice, Bearer bob")),
        (("Basic YTphbGljZQ==",), "scheme"), (("Negotiate alice",), "scheme"),
    ],
)  # fmt: skip
def test_other_credentials_never_reach_the_validator(values, reason):
    validator = FakeValidator()

    with open_authenticator(validator) as authenticator, pytest.raises(Rejected) as caught:
        authenticate(authenticator, *values)

    assert caught.value.reason == reason
    assert validator.validated == []


@pytest.mark.parametrize(
    "headers",
    [basic("somebody:alice"), {"authorization": ("Basic YWI6YWxpY2U",)}, {"authorization": ("bearer alice",)}],
    ids=["basic", "unpadded", "bearer"],
)
def test_a_credential_is_exchanged_for_a_bearer(headers):
    with open_authenticator(FakeValidator()) as authenticator:
        assert asyncio.run(authenticator.exchange(headers)) == (ALICE, Secret("alice"))


@pytest.mark.parametrize(
    "headers",
    [
        *map(basic, ["somebody:mallory", "alice", "somebody:", "somebody:a b", "somebody:a\r\nx: y"]),
        {"authorization": ("Basic ***",)}, {"authorization": ("Negotiate alice",)},
    ],
)  # fmt: skip
def test_another_credential_is_not_exchanged(headers):
    with open_authenticator(FakeValidator()) as authenticator, pytest.raises(Rejected):
        asyncio.run(authenticator.exchange(headers))


@pytest.mark.parametrize("headers", [bearer("unknown-credential"), basic("me:unknown-credential")])
def test_a_credential_that_is_refused_is_in_no_verbose_traceback(headers):
    (value,) = headers["authorization"]
    received = authentication.group_headers([("authorization", value)])

    with open_authenticator(FakeValidator()) as authenticator:
        shown = verbose_traceback(lambda: asyncio.run(authenticator.exchange(received)))

    assert "unknown-credential" not in shown
    assert value.rpartition(" ")[2] not in shown


def test_too_many_checks_at_once_are_an_outage():
    release = threading.Event()

    async def check(authenticator):
        waiting = [asyncio.create_task(authenticator.authenticate(bearer("alice"))) for _ in range(1024)]
        await asyncio.sleep(0)
        try:
            with pytest.raises(Unavailable):
                await authenticator.authenticate(bearer("alice"))
        finally:
            release.set()
        await asyncio.gather(*waiting)
        return await authenticator.authenticate(bearer("alice"))

    with open_authenticator(slow_validator(release)) as authenticator:
        assert asyncio.run(check(authenticator)) == ALICE


class TestKeysThatAreBeingFetched:
    """An issuer whose keys are being fetched holds no thread, and all who wait share one fetch."""

    @pytest.fixture
    def provider(self):
        provider = FakeProvider()
        provider.gate.clear()
        yield provider
        provider.gate.set()

    @staticmethod
    def validator_of(issuer, http, clock):
        issuers = (IssuerSetting(issuer=issuer, audiences=(AUDIENCE,)),)
        return OidcValidator(OidcServerSettings(issuers=issuers), http=http, clock=clock)

    def test_a_thousand_callers_of_a_server_without_keys_are_accepted_with_one_fetch(self, provider, clock, caplog):
        headers = bearer(mint())

        async def call_all(authenticator):
            calls = [asyncio.create_task(authenticator.authenticate(headers)) for _ in range(1000)]
            await asyncio.to_thread(provider.arrived.wait, 10)
            provider.gate.set()
            return await asyncio.gather(*calls)

        with open_authenticator(self.validator_of(ISSUER, provider, clock), check_seconds=60) as authenticator:
            callers = asyncio.run(call_all(authenticator))

        assert [caller.subject for caller in callers] == ["alice"] * 1000
        assert len(provider.requested) == 2
        assert {event["outcome"] for event in access_events(caplog)} == {"accepted"}

    def test_an_issuer_that_does_not_answer_holds_up_nobody_else(self, provider, clock):
        issuers = ((ISSUER, provider), (OTHER_ISSUER, FakeProvider(OTHER_ISSUER)))
        validator = MultiValidator([self.validator_of(issuer, http, clock) for issuer, http in issuers])

        async def call(authenticator):
            forged = [
                asyncio.create_task(authenticator.authenticate(bearer(mint(subject=f"x{number}"))))
                for number in range(300)
            ]
            await asyncio.to_thread(provider.arrived.wait, 10)
            caller = await authenticator.authenticate(bearer(mint(issuer=OTHER_ISSUER)))
            for task in forged:
                task.cancel()
            await asyncio.wait(forged)
            return caller.issuer

        with open_authenticator(validator) as authenticator:
            assert asyncio.run(call(authenticator)) == OTHER_ISSUER


def test_a_check_that_takes_too_long_leaves_an_event(caplog):
    release = threading.Event()

    with open_authenticator(slow_validator(release), check_seconds=0.05) as authenticator:
        with pytest.raises(Unavailable):
            authenticate(authenticator, "Bearer alice")
        release.set()

    assert [event["reason"] for event in access_events(caplog)] == ["check_timed_out"]


class TestLimits:
    """Callers who call too often, or are refused too often, learn when to try again."""

    @staticmethod
    def refusals(clock, burst):
        return CallLimits(RateLimits(refusals_per_second=1, burst_refusals=burst), clock=clock)

    def test_missing_credentials_are_not_refusals_of_an_address(self, clock):
        with open_authenticator(FakeValidator(), limits=self.refusals(clock, 1)) as authenticator:
            for _ in range(3):
                with pytest.raises(Rejected):
                    authenticate(authenticator)

            assert authenticate(authenticator, "Bearer alice") == ALICE

    def test_four_undecided_credentials_count_as_one_refused(self, clock):
        with open_authenticator(FakeValidator(), limits=self.refusals(clock, 2)) as authenticator:
            for _ in range(5):
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")
            with pytest.raises(ResourcesExhausted):
                authenticate(authenticator, "Bearer outage")
            for _ in range(100):  # whoever tries again every second learns of the outage
                clock.advance(1)
                with pytest.raises(Unavailable):
                    authenticate(authenticator, "Bearer outage")

    def test_of_many_bad_credentials_at_once_no_more_are_looked_at_than_the_burst(self, clock):
        validator = FakeValidator()

        async def flood(authenticator):
            calls = [authenticator.authenticate(bearer(f"bad{number}"), lambda: CALL) for number in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)

        with open_authenticator(validator, limits=self.refusals(clock, 3)) as authenticator:
            answers = asyncio.run(flood(authenticator))

        assert len(validator.validated) == 3
        assert sorted({type(answer).__name__ for answer in answers}) == ["Rejected", "ResourcesExhausted"]


ANYONE = AuthContext(subject="anonymous", issuer="none", auth_type=AuthType.NONE)
PLAIN_KEY = AuthContext(subject="cron", issuer="api_key", auth_type=AuthType.API_KEY)
CLAIM = {"x-user-id": ("carol",), "x-user-email": ("carol%40example.com",), "x-user-name": ("Zo%C3%AB",)}
PROXY = "ipv4:10.0.0.1:4711"


def _options(**headers):
    return parse_statement({key: (value,) for key, value in headers.items()}, "SELECT 1", ALICE, is_read_only=False)


NOON = "2026-11-24T12:00:00Z"


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        ("2026-11-24T12:00:00+02:00", "2026-11-24T12:00:00.25Z", ("10:00:00", "12:00:00.25")),
        # Nanoseconds widen it.
        ("2026-11-24T12:00:00.123456789Z", "2026-11-24T12:00:01.123456789Z", ("12:00:00.123456", "12:00:01.123457")),
        # Half a range is no range.
        (NOON, None, None), (None, "not looked at", None), ("", "", None), (NOON, "", None),
    ],
)  # fmt: skip
def test_a_whole_range_is_read(begin, end, expected):
    sent = {"query_range_begin": begin, "query_range_end": end}
    times = [datetime.fromisoformat(f"2026-11-24T{text}+00:00") for text in expected or ()]

    found = _options(**{name: text for name, text in sent.items() if text is not None}).time_range

    assert found == (TimeRange(begin=times[0], end=times[1]) if times else None)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        *((begin, NOON) for begin in (
            "2026-11-24", "2026-11-24T12:00:00", "2026-13-24T12:00:00Z", "20261124T120000Z", "2026-11-24T12:00:60Z",
            "2026-11-24T12:00:00+25:00", "٢٠٢٦-11-24T12:00:00Z")),
        (NOON, "9999-12-31T23:59:59.9999999Z"), (NOON, "2026-11-24T11:59:59Z"),
    ],
)  # fmt: skip
def test_what_is_not_a_time_or_ends_before_it_begins_is_refused(begin, end):
    with pytest.raises(UsageError, match="range"):
        _options(query_range_begin=begin, query_range_end=end)


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "1e3", " 1", "٣", "9" * 19])
def test_a_limit_is_a_whole_number(limit):
    assert [_options(limit=good).row_limit for good in ("0", "1000")] == [0, 1000]
    with pytest.raises(UsageError):
        _options(limit=limit)


def test_dictionaries_and_compression_are_given_on_request():
    kept = [_options(preserve_dictionary=value).preserve_dictionary for value in ("TRUE", "1")]
    compressions = [
        authentication.parse_compression({"x-micromegas-compression": (value,)}) for value in ("ZSTD", "lz4", "none")
    ]

    assert kept == [True, False]
    assert [*compressions, authentication.parse_compression({})] == ["zstd", "lz4", None, None]
    with pytest.raises(UsageError, match="lz4, zstd or none"):
        authentication.parse_compression({"x-micromegas-compression": ("gzip",)})


@pytest.mark.parametrize(
    ("peer", "forwarded", "real_ip", "address"),
    [
        ("ipv4:192.0.2.7:4711", ("203.0.113.9",), "203.0.113.9", "192.0.2.7"),
        *((peer, None, None, address) for peer, address in (
            ("ipv4:192.0.2.7:4711", "192.0.2.7"), ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
            ("ipv6:%5B::1%5D:4711", "::1"), ("unix:/tmp/socket", "unknown"), ("ipv4:nonsense", "unknown"))),
        (PROXY, ("1.1.1.1", "2.2.2.2, 203.0.113.9"), None, "203.0.113.9"),
        (PROXY, None, "203.0.113.9", "203.0.113.9"), (PROXY, ("203.0.113.9:4711",), None, "203.0.113.9"),
        (PROXY, ("1.1.1.1:1, 203.0.113.9:4711",), None, "203.0.113.9"),
        *((PROXY, (sent,), None, "2001:db8::9") for sent in ("2001:db8::9", "[2001:db8::9]", "[2001:db8::9]:4711")),
        # Where the proxy's entry cannot be read, no other header is believed.
        (PROXY, ("<script>",), "nobody", "10.0.0.1"),
        *((PROXY, (sent,), "203.0.113.66", "10.0.0.1") for sent in (
            "", "unknown", "203.0.113.9:port", "203.0.113.9:123456", "203.0.113:4711", "[203.0.113.9]:4711", "[]:1",
            "1.1.1.1,")),
    ],
)  # fmt: skip
def test_only_a_trusted_proxy_names_the_client_and_its_last_entry_counts(peer, forwarded, real_ip, address):
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    headers |= {} if real_ip is None else {"x-real-ip": (real_ip,)}

    assert authentication.find_client_address(peer, headers, frozenset({"10.0.0.1"})) == address


@pytest.mark.parametrize(
    ("caller", "claim", "expected"),
    [
        (ANYONE, CLAIM, Attribution(user="carol", email="carol@example.com", name="Zoë")),
        (ANYONE, {}, Attribution(user="unknown", email="unknown")),
        (SERVICE, {}, Attribution(user="grafana", email="service-account")),
        (SERVICE, {"x-user-id": ("",)}, Attribution(user="grafana", email="service-account")),
        (SERVICE, CLAIM, Attribution(
            user="carol", email="carol@example.com", name="Zoë", service_account_name="grafana")),
        # Naming oneself is fine.
        (ALICE, {"x-user-id": ("alice",), "x-user-email": ("alice%40example.com",)},
         Attribution(user="alice", email="alice@example.com")),
        (BOB, {"x-user-email": ("bob@example.com",)}, Attribution(user="bob", email="unknown")),
        (PLAIN_KEY, {}, Attribution(user="cron", email="service-account")),
    ],
)  # fmt: skip
def test_without_authentication_and_of_a_delegating_key_the_claim_is_taken(caller, claim, expected):
    assert resolve_attribution(caller, claim) == expected


@pytest.mark.parametrize(
    ("caller", "claim"),
    [
        *((caller, {"x-user-id": ("carol",)}) for caller in (ALICE, BOB, PLAIN_KEY)),
        (ALICE, {"x-user-id": ("alice",), "x-user-email": ("root@example.com",)}),
    ],
)
def test_nobody_else_may_name_another_user(caller, claim):
    with pytest.raises(PermissionDenied) as caught:
        resolve_attribution(caller, claim)

    assert caught.value.reason == "impersonation"


@pytest.mark.parametrize(
    "value",
    [
        "a%0Ab", "a%0D%0Ab", "%00", "%1B%5B31m", "%7F", "%C2%85", "%E2%80%A8", "%E2%80%AE", "%EF%BB%BFroot", "a\tb",
        "a%FFb\u00e9", "x" * 257, "%C3%A9" * 257, "%FF" + "x" * 254, "%FF%0A\n",
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_shown_is_refused_by_its_header(value):
    for caller, name in ((ANYONE, "x-user-id"), (SERVICE, "x-user-email"), (ALICE, "x-user-name")):
        with pytest.raises(UsageError) as caught:
            resolve_attribution(caller, {name: (value,)})

        assert f"The header {name} " in caught.value.what
        assert value not in str(caught.value)


def test_several_values_of_one_header_are_refused():
    for name in ("x-user-id", "x-user-email", "x-user-name"):
        with pytest.raises(UsageError, match=f"The header {name} was sent 2 times"):
            resolve_attribution(SERVICE, {name: ("carol", "carol")})


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("x" * 256, "x" * 256), ("%C3%A9" * 256, "é" * 256), ("%E6%97%A5%E6%9C%AC", "日本"), ("a%20b", "a b"),
        ("%FF%FE", "%FF%FE"), ("a+b", "a+b"),
    ],
)  # fmt: skip
def test_printable_text_of_every_script_is_taken(sent, shown):
    assert resolve_attribution(SERVICE, {"x-user-id": (sent,)}).user == shown


@pytest.mark.parametrize("subject", ["zo\u00eb", "\U0001f600", "a\nb", "a\x00b", "\x1b[31m"])
def test_s12_s13_no_subject_fails_or_makes_a_claimed_user_believed(subject):
    caller = replace(BOB, subject=subject, email="a\nb@example.com")

    assert resolve_attribution(caller, {}).user == subject
    for claim in ({"x-user-id": ("root",)}, {"x-user-email": ("root@example.com",)}):
        with pytest.raises(PermissionDenied):
            resolve_attribution(caller, claim)
