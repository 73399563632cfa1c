"""Only administrators make the server read its access configuration again."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.audit import AccessAudit, CallFacts
from micromegas_jupyter.errors import (
    ConfigurationError,
    DeadlineExceeded,
    MicromegasError,
    PermissionDenied,
    Unavailable,
    UnsupportedRequest,
)
from micromegas_jupyter.executors.limits import RunningLimit
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.server import reloading
from micromegas_jupyter.server.calls import Call
from micromegas_jupyter.server.reloading import AccessReload
from tests.fakes.validator import ALICE, BOB, FakeValidator, ReloadableFake

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import AuthContext


class Written:
    """As much of a servicer context as one answer needs."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def write(self, message: bytes) -> None:
        self.messages.append(message)


def _call(context: Written, caller: AuthContext) -> Call:
    return Call(
        context=context,  # type: ignore[arg-type]
        headers={},
        caller=caller,
        query_id="q-1",
        readers=RunningLimit(max_running=1, max_per_caller=1, queue_timeout_seconds=1),
        describe=lambda: CallFacts(method="/x/DoAction", client_address="192.0.2.7", call_id="q-1"),
    )


def _run(validator: object, caller: AuthContext) -> list[bytes]:
    context = Written()
    asyncio.run(AccessReload(validator, audit=AccessAudit()).run(_call(context, caller)))
    return context.messages


def _events(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("audit.access")]
    return [(line["outcome"], line.get("code"), line["subject"], line["client_ip"]) for line in lines]


def test_an_administrator_reloads_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    validator = ReloadableFake()

    (answer,) = _run(validator, ALICE)

    assert json.loads(messages.Result.FromString(answer).body) == {"reloaded": True}
    assert validator.reloads == 1
    assert _events(caplog) == [("reloaded", None, "alice", "192.0.2.7")]


def test_nobody_else_may(caplog: pytest.LogCaptureFixture) -> None:
    validator = ReloadableFake()

    with pytest.raises(PermissionDenied) as caught:
        _run(validator, BOB)

    assert (validator.reloads, caught.value.reason) == (0, "not_administrator")


@pytest.mark.parametrize("validator", [None, FakeValidator()], ids=["none", "fixed"])
def test_a_server_with_nothing_to_reload_says_so(validator: object) -> None:
    with pytest.raises(UnsupportedRequest):
        _run(validator, ALICE)


def test_a_malformed_configuration_is_named_by_its_key(caplog: pytest.LogCaptureFixture) -> None:
    validator = ReloadableFake()
    validator.failure = ConfigurationError("It is not JSON.", key="oidc.issuers[0].audience", remedy="Mend it.")

    with pytest.raises(ConfigurationError) as caught:
        _run(validator, ALICE)

    assert str(caught.value) == "oidc.issuers[0].audience: It is not JSON. Mend it."
    assert caught.value.grpc_code == "FAILED_PRECONDITION"
    assert _events(caplog) == [("reload_failed", "CONF001", "alice", "192.0.2.7")]


def test_a_key_that_the_sentence_names_is_not_named_twice() -> None:
    validator = ReloadableFake()
    validator.failure = ConfigurationError("denied[0] is no text.", key="denied[0]")

    with pytest.raises(ConfigurationError) as caught:
        _run(validator, ALICE)

    assert caught.value is validator.failure


def test_other_errors_stay_what_they_are() -> None:
    validator = ReloadableFake()
    validator.failure = Unavailable("A file cannot be read.")

    with pytest.raises(MicromegasError) as caught:
        _run(validator, ALICE)

    assert caught.value is validator.failure


@pytest.mark.parametrize(
    ("validator", "caller", "expected"),
    [(ReloadableFake(), ALICE, True), (ReloadableFake(), BOB, False), (FakeValidator(), ALICE, False)],
)
def test_it_is_offered_to_administrators_of_a_server_that_can(
    validator: object, caller: AuthContext, expected: bool
) -> None:
    assert AccessReload(validator, audit=AccessAudit()).is_offered_to(caller) is expected


def test_a_reload_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Stuck(ReloadableFake):
        def reload(self) -> None:
            release.wait(60)

    monkeypatch.setattr(reloading, "_RELOAD_SECONDS", 0.05)

    async def scenario() -> None:
        call = _call(Written(), ALICE)
        try:
            await AccessReload(Stuck(), audit=AccessAudit()).run(call)
        finally:
            release.set()

    with pytest.raises(DeadlineExceeded):
        asyncio.run(scenario())
