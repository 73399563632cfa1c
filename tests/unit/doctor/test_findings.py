"""Tests of `doctor.findings`: how findings read."""

from __future__ import annotations

import json

import pytest

from micromegas_jupyter.doctor.findings import (
    Outcome,
    complaint,
    exit_code_of,
    failed,
    findings_as_json,
    findings_as_lines,
    guarded,
    ok,
    skipped,
)
from micromegas_jupyter.errors import ConfigurationError, LoginRequired, ProviderUnavailable

FINE = ok("flow", "browser: it opens here", details=["then device"], facts={"flow": "browser"})


def test_a_failure_has_its_code_and_the_remedy_below():
    lines = findings_as_lines([failed("token", LoginRequired("Nobody is signed in.", remedy="Sign in."))])

    assert lines == ["✗ token: Nobody is signed in. · AUTH001", "    → Sign in."]


def test_nothing_found_can_steer_a_terminal_or_break_a_line():
    lines = findings_as_lines([ok("issuer", "a\x1b[2Jb\nc")])

    assert lines == ["✓ issuer: a\ufffd[2Jb c"]


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([FINE, skipped("a", "b")], 0),
        ([FINE, complaint("clock", "late", remedy="Set it.")], 1),
        ([failed("settings", ConfigurationError("Bad.", key="k")), failed("token", LoginRequired("x"))], 2),
        ([failed("token", LoginRequired("x"))], 3),
        ([FINE, failed("issuer", ProviderUnavailable("x")), failed("token", LoginRequired("x"))], 4),
    ],
)
def test_the_exit_code_is_that_of_the_first_failure(findings, expected):
    assert exit_code_of(findings) == expected


def test_json_holds_the_same_for_programs():
    document = json.loads(findings_as_json([FINE, failed("token", LoginRequired("Nobody.", remedy="Sign in."))]))

    assert document["ok"] is False
    assert document["checks"][0] == {
        "check": "flow",
        "outcome": "ok",
        "found": "browser: it opens here",
        "remedy": "",
        "code": None,
        "details": ["then device"],
        "facts": {"flow": "browser"},
    }
    assert document["checks"][1]["code"] == "AUTH001"


def test_a_defect_in_a_check_is_a_finding_without_its_text():
    def look():
        raise KeyError("sesame")

    finding = guarded("store", look)

    assert finding.outcome is Outcome.FAILED
    assert "sesame" not in "".join(findings_as_lines([finding]))
    assert finding.code == "INT001"
