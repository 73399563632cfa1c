"""Tests of the collector itself: it sees every way in which the package gives a reason code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.architecture.reason_codes import UnreadableCode, collect_codes

if TYPE_CHECKING:
    from pathlib import Path


def codes_of(folder: Path, source: str) -> set[str]:
    path = folder / "sample.py"
    path.write_text(source, encoding="utf-8")
    return set(collect_codes([path]))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('raise TokenProblem("expired")', {"expired"}),
        ('raise Rejected("What happened.", reason="missing")', {"missing"}),
        ('raise TokenProblem("wrong" if fits else "does_not_fit")', {"wrong", "does_not_fit"}),
        ('CODE = "denied"\nx = Refused(reason=CODE)', {"denied"}),
        ("x = Refused(reason=problem.reason)", set()),
        ('class UnknownKey(TokenProblem): ...\nraise UnknownKey("unknown_key")', {"unknown_key"}),
        ('def f():\n    code = "late"\n    raise TokenProblem(code)', {"late"}),
        ('def f(reason):\n    raise TokenProblem(f"{reason}_gone")\nf("a")\nf(reason="b")', {"a_gone", "b_gone"}),
        ('class A:\n    def f(self, x, *, why):\n        return Refused(reason=why)\nA().f(1, why="c")', {"c"}),
        ('def g(code):\n    f(code)\ndef f(reason):\n    raise TokenProblem(reason)\ng("deep")', {"deep"}),
        ('raise ValueError("not_a_code")', set()),
    ],
)
def test_a_code_is_followed_to_its_text(tmp_path, source, expected):
    assert codes_of(tmp_path, source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "raise TokenProblem(words[0])",
        "raise TokenProblem(name)",
        'def f(reason="expired"):\n    raise TokenProblem(reason)\nf()',
        "def f(reason):\n    raise TokenProblem(reason)\n    f(reason)",
    ],
)
def test_a_code_that_cannot_be_followed_is_an_error(tmp_path, source):
    with pytest.raises(UnreadableCode):
        codes_of(tmp_path, source)
