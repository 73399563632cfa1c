"""Tests of `access.audit`: one event per finding, and no credential in any of them."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest

from micromegas_jupyter.access import ApiKeyValidator, MultiValidator, Rejected, Unavailable
from micromegas_jupyter.access.audit import LOGGER, record_event
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.settings import ApiKeySetting
from tests.fakes.mint import ISSUER, mint

PLAIN_FIELDS = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "micromegas_jupyter.access")
    return lambda: [
        {"event": record.getMessage(), "level": record.levelname}
        | {name: value for name, value in vars(record).items() if name not in PLAIN_FIELDS}
        for record in caplog.records
        if "keys changed" not in record.getMessage()
    ]


def name_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def test_an_accepted_token_leaves_who_and_with_which_key(validator, events):
    token = mint()

    validator.validate_token(token)

    assert events() == [
        {
            "event": "A credential was accepted.",
            "level": "INFO",
            "outcome": "accepted",
            "reason": None,
            "issuer": ISSUER,
            "subject": "alice",
            "kid": "rsa",
            "token": name_of(token),
        }
    ]


def test_a_refused_token_leaves_the_reason_and_what_it_claimed(validator, events):
    token = mint(audience="other", subject="mallory")

    with pytest.raises(Rejected):
        validator.validate_token(token)

    assert events() == [
        {
            "event": "A credential was refused.",
            "level": "INFO",
            "outcome": "refused",
            "reason": "audience_mismatch",
            "issuer": ISSUER,
            "subject": "mallory",
            "kid": "rsa",
            "token": name_of(token),
        }
    ]


def test_an_undecided_token_leaves_a_warning(validator, provider, events):
    provider.go_down()

    with pytest.raises(Unavailable):
        validator.validate_token(mint())

    assert [(event["level"], event["event"], event["reason"]) for event in events()] == [
        ("WARNING", "An issuer's keys could not be fetched.", "AVAIL002"),
        ("WARNING", "A credential could not be checked.", "keys_unavailable"),
    ]


def test_several_validators_leave_one_event(validator, events):
    keys = ApiKeyValidator([ApiKeySetting(name="grafana", key=Secret("mmk_8c1f0a6de2b94b7f"))])
    multi = MultiValidator([keys, validator])

    multi.validate_token(mint())
    multi.validate_token("mmk_8c1f0a6de2b94b7f")
    with pytest.raises(Rejected):
        multi.validate_token("unknown")

    assert [(event["outcome"], event["subject"], event["reason"]) for event in events()] == [
        ("accepted", "alice", None),
        ("accepted", "grafana", None),
        ("refused", None, "unknown_api_key"),
    ]


HOSTILE = [
    "line\nbreak",
    "carriage\rreturn",
    '{"outcome": "accepted"}',
    "\x1b[31mred",
    "null\0",
    "\u2028\u2029\u0085",
    "\u202ereversed",
    "x" * 5000,
    "é" * 5000,
    "\U0001f600" * 300,
    "'; DROP TABLE audit; --",
    "%s%n%x",
]


@pytest.mark.parametrize("claim", ["iss", "sub"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_claims_leave_one_bounded_line_each(validator, events, claim, text):
    with pytest.raises(Rejected):
        validator.validate_token(mint(expires_in=-100, **{"issuer" if claim == "iss" else "subject": text}))

    (event,) = events()
    line = json.dumps(event, ensure_ascii=False)
    assert line.isprintable()
    assert all(len(value) <= 256 for value in event.values() if isinstance(value, str))
    assert event["outcome"] == "refused"


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_hostile_key_names_leave_one_bounded_line_each(validator, events, text):
    with pytest.raises(Rejected):
        validator.validate_token(mint(header={"kid": text}))

    (event,) = events()
    assert json.dumps(event, ensure_ascii=False).isprintable()


def test_control_characters_stay_recognisable(validator, events):
    with pytest.raises(Rejected):
        validator.validate_token(mint(issuer="a\nb\x1b\u2028"))

    assert events()[0]["issuer"] == "a\\nb\\x1b\\u2028"


@pytest.mark.parametrize("token", ["x" * 20000, None, 5], ids=["huge", "None", "5"])
def test_what_is_no_token_has_no_digest(validator, events, token):
    with pytest.raises(Rejected):
        validator.validate_token(token)

    assert [(event["reason"], event["token"]) for event in events()] == [("token_implausible", "implausible")]


def test_no_event_holds_a_credential_at_any_level(validator, provider, caplog):
    caplog.set_level(logging.DEBUG)
    tokens = [mint(), mint(audience="other"), mint(header={"kid": "new"}), "opaque-secret-value", mint(nbf="x")]

    for token in tokens:
        try:
            validator.validate_token(token)
        except Rejected:
            continue

    everything = " ".join(str(vars(record)) for record in caplog.records)
    assert len(caplog.records) == 6
    for token in tokens:
        assert token not in everything
        assert not any(len(part) > 20 and part in everything for part in token.split("."))


def test_a_log_sink_that_fails_changes_nothing(validator):
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    handler = Broken()
    LOGGER.addHandler(handler)
    level = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    try:
        accepted = validator.validate_token(mint())
        with pytest.raises(Rejected):
            validator.validate_token(mint(audience="other"))
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)

    assert accepted.subject == "alice"


def test_numbers_stay_numbers(events):
    record_event(logging.WARNING, "An event.", usable=3)

    assert events() == [{"event": "An event.", "level": "WARNING", "usable": 3}]
