"""What a client says about the program that it runs in."""

from __future__ import annotations

import sys
import types
import uuid

import pytest

from micromegas_jupyter.client.calls import build_tag_headers
from micromegas_jupyter.errors import UsageError


def find_attribution(environ: dict[str, str], *, entrypoint: str | None = None) -> types.SimpleNamespace:
    headers = dict(build_tag_headers(environ, entrypoint=entrypoint))
    assert headers.pop(b"x-client-type") == b"python"
    return types.SimpleNamespace(
        **{key.decode().removeprefix("x-client-"): value.decode() for key, value in headers.items()}
    )


def test_a_plain_process_has_no_agent_and_a_session_of_its_own() -> None:
    first, second = find_attribution({}), find_attribution({})

    assert first.agent == "none"
    assert uuid.UUID(first.session).version == 4
    assert first.session != second.session


def test_variables_name_agent_and_entry_point() -> None:
    found = find_attribution({"MICROMEGAS_CLIENT_AGENT": "ci", "MICROMEGAS_CLIENT_ENTRYPOINT": "nightly"})

    assert (found.agent, found.entrypoint) == ("ci", "nightly")


def test_known_marks_name_agent_and_session() -> None:
    found = find_attribution({"CLAUDECODE": "1", "CLAUDE_CODE_SESSION_ID": "s-1"})

    assert (found.agent, found.session) == ("claude-code", "s-1")


def test_the_callers_own_name_wins() -> None:
    found = find_attribution({"MICROMEGAS_CLIENT_ENTRYPOINT": "nightly"}, entrypoint="cli-query")

    assert found.entrypoint == "cli-query"


@pytest.mark.parametrize("bad", ["a\nb", "é", "x" * 65, "\x00"])
def test_a_name_that_cannot_be_sent_is_refused_from_the_caller_and_passed_over_from_the_environment(bad: str) -> None:
    found = find_attribution({"MICROMEGAS_CLIENT_AGENT": bad, "MICROMEGAS_CLIENT_ENTRYPOINT": bad})

    assert found.agent == "none"
    assert found.entrypoint in {"script", "repl", "jupyter"}
    with pytest.raises(UsageError):
        find_attribution({}, entrypoint=bad)


def test_a_notebook_kernel_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))

    assert find_attribution({}).entrypoint == "jupyter"


@pytest.mark.parametrize(
    ("argv", "main", "entrypoint"),
    [(["-c"], {}, "script"), (["x.py"], {"__file__": "x.py"}, "script"), ([""], {}, "repl")],
)
def test_scripts_and_shells_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], main: dict[str, str], entrypoint: str
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(**main))

    assert find_attribution({}).entrypoint == entrypoint
