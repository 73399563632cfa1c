"""Tests of `access.audit`: one event per finding, and no credential in any of them."""

import errno
import hashlib
import json
import logging
import os
import stat
import subprocess
import sys
from unittest.mock import Mock

import pytest

from micromegas_jupyter.access import Rejected, Unavailable, audit
from micromegas_jupyter.access.audit import AUDIT_LOGGER, AccessAudit, AccessEvent, AuditFile, AuditFileHandler
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import ISSUER, mint
from tests.fakes.waiting import DEADLINE_SECONDS, wait_until

API_KEY = "mmk_8c1f0a6de2b94b7f"
REFUSED = AccessEvent(outcome="refused", reason="signature_wrong", code="AUTH010")


@pytest.fixture
def validator(validator, clock):
    """A validator whose flood limit no other test has used."""
    validator.audit = AccessAudit(clock=clock)
    return validator


@pytest.fixture
def events(caplog):
    """Return what is on the audit's logger by now, each line decoded."""
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == AUDIT_LOGGER.name]


def name_of(token):
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def test_an_accepted_token_leaves_who_and_with_which_key(validator, events):
    token = mint()

    with audit.checking_for(audit.CallFacts(method="/x/DoGet", client_address="192.0.2.7", call_id="q-1")):
        validator.validate_token(token)

    (event,) = events()
    assert event == {
        "event": "access", "outcome": "accepted", "issuer": ISSUER, "subject": "alice", "kid": "rsa",
        "credential": name_of(token), "client_ip": "192.0.2.7", "method": "/x/DoGet", "query_id": "q-1",
        "time": "2026-11-24T12:00:00.000Z",
    }  # fmt: skip


def test_a_refused_token_leaves_reason_and_claims_and_an_undecided_one_a_warning(validator, provider, events, caplog):
    token = mint(audience="other", subject="mallory")
    with pytest.raises(Rejected):
        validator.validate_token(token)
    provider.go_down()
    with pytest.raises(Unavailable):
        validator.validate_token(mint())

    refused, undecided = events()
    assert (refused["outcome"], refused["reason"], refused["code"]) == ("refused", "audience_mismatch", "AUTH010")
    assert (refused["issuer"], refused["subject"], refused["kid"]) == (ISSUER, "mallory", "rsa")
    assert refused["credential"] == name_of(token)
    assert (undecided["outcome"], undecided["reason"], undecided["code"]) == (
        "undecided", "keys_unavailable", "AVAIL001",
    )  # fmt: skip
    assert caplog.records[-1].levelname == "WARNING"


HOSTILE = [
    "line\nbreak", "carriage\rreturn", "both\r\n\r\n", "\v\f\x1c\x1d\x1e", '{"outcome": "accepted"}',
    '"}\n{"event":"access","outcome":"accepted"}', "\x1b[31mred", "\x1b]0;title\x07", "null\0", "\x7f\x80\x9f",
    "\u2028\u2029\u0085", "\u202ereversed", "\ufeffmark", "x" * 5000, "é" * 5000, "\U0001f600" * 300, "\\" * 300,
    '"' * 300, "\t\b", "'; DROP TABLE audit; --", "%s%n%x%(x)s", "{0}{1!r}", "${jndi:ldap://x}", "<script>",
]  # fmt: skip


@pytest.mark.parametrize("claim", ["iss", "sub", "kid"])
@pytest.mark.parametrize("text", HOSTILE)
def test_each_of_72_hostile_claims_leaves_exactly_one_bounded_line_that_parses(validator, events, caplog, claim, text):
    changes = {"iss": {"issuer": text}, "sub": {"subject": text}, "kid": {"header": {"kid": text}}}[claim]

    with pytest.raises(Rejected):
        validator.validate_token(mint(expires_in=-100, **changes))

    (event,) = events()
    line = caplog.records[-1].getMessage()
    assert all(" " <= character <= "~" for character in line)
    assert len(line) < 16_000
    assert all(len(value) <= 256 for value in event.values() if isinstance(value, str))
    assert event["outcome"] == "refused"


def test_no_event_holds_a_credential_at_any_level(validator, caplog):
    caplog.set_level(logging.DEBUG)
    tokens = [mint(), mint(audience="other"), mint(header={"kid": "new"}), "opaque-secret-value", mint(nbf="x")]

    for token in tokens:
        try:
            validator.validate_token(token)
        except Rejected:
            continue

    everything = " ".join(str(vars(record)) for record in caplog.records)
    assert len([record for record in caplog.records if record.name == AUDIT_LOGGER.name]) == 5
    for token in tokens:
        assert token not in everything
        assert not any(len(part) > 20 and part in everything for part in token.split("."))


def test_a_log_sink_that_fails_changes_nothing(validator, monkeypatch):
    monkeypatch.setattr(AUDIT_LOGGER, "handlers", [Mock(level=0, **{"handle.side_effect": OSError("disk full")})])

    assert validator.validate_token(mint()).subject == "alice"
    with pytest.raises(Rejected):
        validator.validate_token(mint(audience="other"))


@pytest.mark.parametrize(("length", "shown"), [(256, 256), (257, 256)])
def test_a_field_has_256_characters_at_most(events, length, shown):
    AccessAudit().record(AccessEvent(outcome="accepted", who=audit.Claimed(subject="x" * length)))

    assert events()[0]["subject"] == "x" * shown


class TestFloods:
    """Refusals are limited; what is left out is counted and told."""

    def test_a_thousand_events_are_written_together_and_a_hundred_in_each_second_after_that(self, clock, events):
        audit = AccessAudit(clock=clock)
        counts = []
        for seconds in (0, 1):
            clock.advance(seconds)
            for _ in range(1100):
                audit.record(REFUSED)
            counts.append(sum(event["event"] == "access" for event in events()))

        assert counts == [1000, 1100]

    def test_a_flood_is_cut_and_told_by_reason_when_there_is_room_again(self, clock, events):
        audit = AccessAudit(clock=clock, events_per_second=1, burst_events=2)
        for reason in ("expired", "expired", "expired", "expired", "signature_wrong"):
            audit.record(AccessEvent(outcome="refused", reason=reason))
        audit.record(AccessEvent(outcome="accepted"))  # never left out
        clock.advance(1)

        audit.record(REFUSED)

        assert [event.get("reason", event.get("outcome", event["event"])) for event in events()] == [
            "expired", "expired", "accepted", "access_left_out", "signature_wrong",
        ]  # fmt: skip
        assert events()[3]["left_out"] == {"expired": 2, "signature_wrong": 1}

    def test_a_lasting_flood_is_told_once_in_ten_seconds_at_the_latest(self, clock, events):
        audit = AccessAudit(clock=clock, events_per_second=0.001, burst_events=1)
        for seconds in (0, 0, 9.9, 0.1):
            clock.advance(seconds)
            audit.record(REFUSED)

        assert [event["event"] for event in events()] == ["access", "access_left_out"]
        assert events()[1]["left_out"] == {"signature_wrong": 3}


WRITER = """
import logging, sys
from pathlib import Path
from micromegas_jupyter.access.audit import AuditFileHandler
handler = AuditFileHandler(Path(sys.argv[1]))
for number in range(500):
    handler.emit(logging.makeLogRecord({"msg": '{"writer":"%s","number":%d}', "args": (sys.argv[2], number)}))
handler.close()
"""

# A limit of the process stands in for a full disk: Python ignores SIGXFSZ, so that the write fails.
FULL_DISK = """
import logging, resource, sys, threading
from pathlib import Path
from micromegas_jupyter.access.audit import AuditFileHandler
reported = threading.Event()
class Reporting(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        reported.set()
logging.getLogger().addHandler(Reporting())
path = Path(sys.argv[1])
handler = AuditFileHandler(path)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
handler.emit(logging.makeLogRecord({"msg": "first"}))
assert reported.wait(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
handler.emit(logging.makeLogRecord({"msg": "second"}))
handler.close()
"""


def _emit(handler, text):
    handler.emit(logging.makeLogRecord({"msg": text}))


def test_lines_are_appended_for_the_owner_only_and_after_a_rotation_go_to_the_new_file(tmp_path):
    path, rotated = tmp_path / "audit.log", tmp_path / "audit.log.1"
    path.write_text("before\n")
    path.chmod(0o644)
    handler = AuditFileHandler(path)
    _emit(handler, "one")
    wait_until(lambda: path.read_text() == "before\none\n", "the line is written")

    path.rename(rotated)
    _emit(handler, "two")
    handler.close()

    assert (rotated.read_text(), path.read_text()) == ("before\none\n", "two\n")
    assert stat.S_IMODE(rotated.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o600


def test_processes_that_write_to_one_file_do_not_mix_their_lines(tmp_path):
    path = tmp_path / "audit.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")]
    assert [writer.wait(DEADLINE_SECONDS) for writer in writers] == [0, 0]

    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert len(lines) == 1000
    for name in ("a", "b"):
        assert [line["number"] for line in lines if line["writer"] == name] == list(range(500))


def test_a_full_disk_is_reported_and_its_lines_are_written_later(tmp_path):
    path = tmp_path / "audit.log"

    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )

    assert child.returncode == 0, child.stderr
    assert child.stderr == b"The audit file cannot be written; new calls are rejected until it can.\n"
    assert path.read_text() == "first\nsecond\n"


@pytest.mark.parametrize(
    ("code", "why"), [(errno.EPERM, "it cannot be opened"), (errno.ENOSPC, "No space left on device")]
)
def test_the_log_has_the_reason_why_the_file_cannot_be_written(tmp_path, caplog, code, why):
    AuditFile(tmp_path / "audit.log").report_failure(OSError(code, ""))

    assert caplog.records[-1].why == why


def test_a_line_that_a_full_disk_cut_off_is_written_again_on_its_own_line(tmp_path, monkeypatch):
    path, room = tmp_path / "audit.log", [5, 0]
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real_write(file, data[: room.pop(0)] if room else data))
    file = AuditFile(path)

    written = file.write([b"one\n", b"two\n"])
    with pytest.raises(OSError, match="No space"):
        file.write([b"two\n"])

    assert (written, file.write([b"two\n"])) == (1, 1)
    assert path.read_text() == "one\nt\ntwo\n"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "no/audit.log"])
def test_what_is_no_file_of_this_account_is_refused(tmp_path, kind):
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigurationError) as caught:
        AuditFileHandler(tmp_path / kind)

    assert caught.value.key == "--audit-log"
    assert str(tmp_path) not in str(caught.value)
