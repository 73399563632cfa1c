"""What the server does with decisions: events, limits, scopes, notices and reloading, seen by a raw gRPC client."""

import json
import logging

import grpc
import pytest

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.errors import PermissionDenied, Rejected, ResourcesExhausted
from micromegas_jupyter.flightsql.commands import messages, statement_ticket
from tests.fakes.clock import FakeClock
from tests.fakes.mint import AUDIENCE, ISSUER, mint
from tests.fakes.provider import FakeProvider
from tests.fakes.validator import ReloadableFake
from tests.integration import flight_harness as harness
from tests.integration.flight_harness import ALICE, BOB, FLIGHT, NUMBERS, action_bytes, result_of, running_server

pytestmark = pytest.mark.integration

AUDIT = "micromegas_jupyter.audit.access"
COLLECTOR = (("authorization", "Bearer collector"),)
LATE = (("authorization", "Bearer late"),)
WRONG = "SELECT nothing_of_the_kind"
STATEMENTS = {
    NUMBERS: grpc.StatusCode.OK,
    WRONG: grpc.StatusCode.INVALID_ARGUMENT,
    harness.HUGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
NOTICE = "This key ends soon.?Get a new one, Zo?."


@pytest.fixture(scope="module")
def flight():
    with running_server(validator=ReloadableFake()) as harness:
        yield harness


@pytest.fixture
def validator(flight):
    flight.validator.reloads, flight.validator.failure = 0, None
    return flight.validator


def _bearer(token):
    return (("authorization", f"Bearer {token}"),)


def _oidc_validator():
    settings = OidcServerSettings(issuers=(IssuerSetting(issuer=ISSUER, audiences=(AUDIENCE,)),))
    return OidcValidator(settings, http=FakeProvider(), clock=FakeClock())


def _events(caplog):
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == AUDIT]


def _who_am_i(flight, metadata):
    return flight.act("MicromegasWhoAmI", metadata=metadata)


def _reload(flight, metadata):
    return flight.act("micromegas.access.reload", metadata=metadata)


class TestEvents:
    def test_a_refused_token_leaves_one_line_with_all_facts(self, caplog):
        with running_server(validator=_oidc_validator()) as flight:
            answer = flight.query(NUMBERS, metadata=_bearer(mint(subject="mallory", audience="other")))

        assert type(answer.error) is Rejected
        (event,) = _events(caplog)
        assert (event["outcome"], event["reason"], event["code"]) == ("refused", "audience_mismatch", "AUTH010")
        assert (event["issuer"], event["subject"], event["kid"]) == (ISSUER, "mallory", "rsa")
        assert (event["client_ip"], event["method"]) == ("127.0.0.1", FLIGHT + "DoGet")
        assert event["query_id"] == answer.error.query_id

    def test_a_client_whose_provider_the_server_does_not_know_is_told_which_one_that_is(self, caplog):
        with running_server(validator=_oidc_validator()) as flight:
            token = StaticTokenAuthProvider(mint(issuer="https://hub.example"))
            client = FlightSQLClient(flight.uri, auth_provider=token, clock=FakeClock())
            with client, pytest.raises(Rejected) as refused:
                client.query("SELECT 1")

        assert "from https://hub.example" in refused.value.what
        assert "query ID" in refused.value.remedy
        assert {event["reason"] for event in _events(caplog)} == {"issuer_unknown"}

    def test_seventy_two_hostile_callers_leave_seventy_two_lines(self, caplog):
        texts = ["a\nb", "\r", "\x1b[31m", "\u2028", "\u202e", "\0", '"}', "x" * 3000, "\U0001f600" * 200] * 8

        with running_server(validator=_oidc_validator()) as flight:
            for text in texts:
                _who_am_i(flight, _bearer(mint(subject=text, audience="other")))

        lines = [record.getMessage() for record in caplog.records if record.name == AUDIT]
        assert len(lines) == 72
        assert all(json.loads(line)["outcome"] == "refused" for line in lines)
        assert all(" " <= character <= "~" for line in lines for character in line)

    def test_no_line_holds_a_token(self, caplog):
        caplog.set_level(logging.DEBUG)
        tokens = [mint(), mint(audience="other")]

        with running_server(validator=_oidc_validator()) as flight:
            for token in tokens:
                _who_am_i(flight, _bearer(token))

        everything = " ".join(str(vars(record)) for record in caplog.records)
        assert not [part for token in tokens for part in token.split(".")[1:] if part in everything]


class TestLimits:
    def test_an_identity_that_calls_too_often_gets_a_hint_that_clients_understand(self):
        limits = RateLimits(calls_per_second=0.01, burst_calls=2)

        with running_server(rate_limits=limits) as flight:
            codes = [_who_am_i(flight, ALICE).code for _ in range(2)]
            refused = _who_am_i(flight, ALICE)
            other = _who_am_i(flight, BOB)

        assert codes == [grpc.StatusCode.OK] * 2
        assert (refused.code, other.code) == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK)
        assert isinstance(refused.error, ResourcesExhausted)
        assert refused.error.retry_after_seconds is not None
        assert 50 < refused.error.retry_after_seconds <= 100
        assert refused.error.remedy == f"Try again in {refused.error.retry_after_seconds:g} seconds."
        assert int(refused.trailing["grpc-retry-pushback-ms"]) == round(refused.error.retry_after_seconds * 1000)

    def test_after_too_many_refusals_an_address_is_not_looked_at_but_known_callers_are(self):
        limits = RateLimits(refusals_per_second=0.01, burst_refusals=3)

        with running_server(rate_limits=limits, trusted_proxies=frozenset({"127.0.0.1"})) as flight:
            flight.validator.cached["alice"] = flight.validator.known["alice"]
            refused = [_who_am_i(flight, _bearer(f"bad{number}")).code for number in range(4)]
            known = _who_am_i(flight, ALICE)
            unknown_here = _who_am_i(flight, BOB)
            elsewhere = _who_am_i(flight, (*BOB, ("x-forwarded-for", "203.0.113.9")))

        assert refused == [grpc.StatusCode.UNAUTHENTICATED] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert (known.code, elsewhere.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
        assert unknown_here.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "bad3" not in flight.validator.validated

    def test_with_authentication_off_nobody_is_counted(self):
        with running_server(is_open=True, rate_limits=RateLimits(calls_per_second=0.01, burst_calls=1)) as flight:
            codes = [_who_am_i(flight, ()).code for _ in range(3)]

        assert codes == [grpc.StatusCode.OK] * 3


class TestScopes:
    @pytest.mark.parametrize(
        ("method", "request_bytes"),
        [
            *((method, harness.descriptor_bytes(messages.CommandStatementQuery(query=NUMBERS)))
              for method in ("GetFlightInfo", "GetSchema")),
            ("DoGet", b""),
            ("DoPut", b""),
            ("DoAction", action_bytes("CreatePreparedStatement")),
            ("DoAction", action_bytes("ClosePreparedStatement")),
        ],
    )  # fmt: skip
    def test_methods_that_read_need_the_scope_read(self, flight, method, request_bytes, caplog):
        answer = flight.call(method, request_bytes, metadata=COLLECTOR)

        (event,) = _events(caplog)
        assert answer.code is grpc.StatusCode.PERMISSION_DENIED
        assert type(answer.error) is PermissionDenied
        assert (event["outcome"], event["reason"], event["subject"]) == ("forbidden", "scope_missing", "collector")

    def test_who_one_is_can_be_asked_with_any_scope(self, flight):
        assert _who_am_i(flight, COLLECTOR).code is grpc.StatusCode.OK


class TestNotices:
    @pytest.mark.parametrize(
        ("method", "request_bytes", "code"),
        [
            ("DoAction", action_bytes("MicromegasWhoAmI"), grpc.StatusCode.OK),
            ("DoAction", action_bytes("NoSuchAction"), grpc.StatusCode.UNIMPLEMENTED),
            ("NoSuchMethod", b"", grpc.StatusCode.UNIMPLEMENTED),
            ("DoGet", b"\xff", grpc.StatusCode.INVALID_ARGUMENT),
            ("Handshake", b"", grpc.StatusCode.OK),
            *(("DoGet", harness.ticket_bytes(statement_ticket(sql)), code) for sql, code in STATEMENTS.items()),
        ],
    )
    def test_every_answer_carries_the_notice_in_printable_ascii(self, flight, method, request_bytes, code):
        answer = flight.call(method, request_bytes, metadata=LATE)

        assert (answer.code, answer.trailing["x-micromegas-notice"]) == (code, NOTICE)


class TestReload:
    def test_an_administrator_may(self, flight, validator):
        answer = _reload(flight, ALICE)

        assert json.loads(result_of(answer)) == {"reloaded": True}
        assert validator.reloads == 1

    def test_others_may_not(self, flight, validator, caplog):
        answer = _reload(flight, BOB)

        assert (answer.code, validator.reloads) == (grpc.StatusCode.PERMISSION_DENIED, 0)
        assert [event["reason"] for event in _events(caplog)] == ["not_administrator"]

    def test_a_server_that_cannot_says_so(self):
        with running_server() as flight:
            assert _reload(flight, ALICE).code is grpc.StatusCode.UNIMPLEMENTED


def test_a_server_knows_whether_it_serves():
    with running_server() as flight:
        assert flight.server.is_serving

    assert not flight.server.is_serving
