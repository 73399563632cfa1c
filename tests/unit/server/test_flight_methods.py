"""Actions: only administrators reload the access configuration; no session is kept, so only what holds can be set."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from micromegas_jupyter.access.audit import CallFacts
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    PermissionDenied,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)
from micromegas_jupyter.executors.scheduling import RunningLimit
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.server import flight_methods
from micromegas_jupyter.server.authentication import Authenticator
from micromegas_jupyter.server.catalog import ServerFacts
from micromegas_jupyter.server.flight_methods import RELOAD_ACTION, FlightMethods, set_options
from micromegas_jupyter.server.flight_service import Call
from tests.fakes.validator import ALICE, BOB, FakeValidator, ReloadableFake

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import AuthContext

INVALID_NAME, INVALID_VALUE = 1, 2


class Context:
    """As much of a servicer context as one answer needs."""

    def __init__(self, request: Any) -> None:
        self.request = request.SerializeToString()
        self.messages: list[bytes] = []

    async def read(self) -> bytes:
        return self.request

    async def write(self, message: bytes) -> None:
        self.messages.append(message)


def _call(validator: object, caller: AuthContext, method: str, request: Any) -> list[bytes]:
    parts: dict[str, Any] = dict.fromkeys(("queries", "prepared", "tickets", "ingests"))
    context = Context(request)
    call = Call(
        context=context,  # type: ignore[arg-type]
        headers={},
        caller=caller,
        query_id="q-1",
        readers=RunningLimit(max_running=1, max_per_caller=1, queue_timeout_seconds=1),
        describe=lambda: CallFacts(method="/x/DoAction", client_address="192.0.2.7", call_id="q-1"),
    )

    async def scenario() -> None:
        record = Authenticator(None, check_seconds=1).record
        reload = getattr(validator, "reload", None)
        methods = FlightMethods(**parts, facts=ServerFacts(), reload=reload, record=record)
        await methods.by_name()[method](call)

    asyncio.run(scenario())
    return context.messages


def _reload(validator: object, caller: AuthContext = ALICE) -> list[bytes]:
    return _call(validator, caller, "DoAction", messages.Action(type=RELOAD_ACTION))


def _events(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]
    return [(line["outcome"], line.get("code"), line["subject"], line["client_ip"]) for line in lines]


def test_an_administrator_reloads(caplog: pytest.LogCaptureFixture) -> None:
    validator = ReloadableFake()

    (answer,) = _reload(validator)

    assert json.loads(messages.Result.FromString(answer).body) == {"reloaded": True}
    assert validator.reloads == 1
    assert _events(caplog) == [("reloaded", None, "alice", "192.0.2.7")]


def test_nobody_else_may() -> None:
    validator = ReloadableFake()

    with pytest.raises(PermissionDenied) as caught:
        _reload(validator, BOB)

    assert (validator.reloads, caught.value.reason) == (0, "not_administrator")


@pytest.mark.parametrize("validator", [None, FakeValidator()], ids=["none", "fixed"])
def test_a_server_with_nothing_to_reload_says_so(validator: object) -> None:
    with pytest.raises(UnsupportedRequest):
        _reload(validator)


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (
            ConfigurationError("It is not JSON.", key="oidc.issuers[0].audience", remedy="Mend it."),
            "oidc.issuers[0].audience: It is not JSON. Mend it.",
        ),
        (
            ConfigurationError("denied[0] is no text.", key="denied[0]", remedy="Mend it."),
            "denied[0] is no text. Mend it.",
        ),
        (Unavailable("A file cannot be read."), "A file cannot be read. Try again in a moment."),
    ],
    ids=["key", "key named", "outage"],
)
def test_a_reload_that_fails_says_what_is_wrong(
    failure: ConfigurationError | Unavailable, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    validator = ReloadableFake()
    validator.failure = failure

    with pytest.raises(type(failure)) as caught:
        _reload(validator)

    assert str(caught.value) == shown
    assert _events(caplog) == [("reload_failed", failure.code, "alice", "192.0.2.7")]


@pytest.mark.parametrize(
    ("validator", "caller", "expected"),
    [(ReloadableFake(), ALICE, True), (ReloadableFake(), BOB, False), (FakeValidator(), ALICE, False)],
)
def test_reloading_is_offered_to_administrators_of_a_server_that_can(
    validator: object, caller: AuthContext, expected: bool
) -> None:
    sent = _call(validator, caller, "ListActions", messages.Ticket())

    assert (RELOAD_ACTION in {messages.ActionType.FromString(one).type for one in sent}) is expected


def test_a_reload_that_does_not_end_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Stuck(ReloadableFake):
        def reload(self) -> None:
            release.wait(60)

    monkeypatch.setattr(flight_methods, "_RELOAD_SECONDS", 0.05)
    threading.Timer(1, release.set).start()

    with pytest.raises(DeadlineExceeded):
        _reload(Stuck())


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("catalog", "string_value", "", None),
        ("timezone", "string_value", "UTC", None),
        ("catalog", "string_value", "other", INVALID_VALUE),
        ("timezone", "int64_value", 0, INVALID_VALUE),
        ("schema", "bool_value", False, INVALID_VALUE),
        ("anything", "string_value", "", INVALID_NAME),
    ],
)
def test_only_what_holds_can_be_set(name: str, kind: str, value: object, expected: int | None) -> None:
    options = {name: messages.SessionOptionValue(**{kind: value}), "schema2": messages.SessionOptionValue()}

    errors = set_options(messages.SetSessionOptionsRequest(session_options=options)).errors

    assert (errors[name].value if name in errors else None) == expected
    assert errors["schema2"].value == INVALID_NAME


@pytest.mark.parametrize("names", [[f"option{number}" for number in range(65)], ["x" * 257]])
def test_more_options_than_any_client_needs_are_refused(names: list[str]) -> None:
    values = {name: messages.SessionOptionValue(bool_value=True) for name in names}

    with pytest.raises(UsageError):
        set_options(messages.SetSessionOptionsRequest(session_options=values))
