import json

import pytest

from micromegas_jupyter.auth.flows.messages import (
    MAX_QUERY_CHARACTERS,
    Accepted,
    CallbackRequest,
    Ended,
    OutcomeRequest,
    Reply,
    Request,
    Started,
    StartRequest,
    StillWorking,
    Unknown,
    build_reply,
    build_request,
    parse_reply,
    parse_request,
)
from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.core.protocols import Secret

NAME = "4f72b256-c23a-4a31-bdf9-f9fbbb6ed380.wNuMG1XJNcsT3-CfvHwJHU1yHQRRXZtUR2cruyvtP2A"
DIGEST = "a" * 64
START = {"version": 1, "action": "start", "name": NAME, "redirect_uri": "https://lab.example.com/micromegas/callback"}


@pytest.mark.parametrize(
    "request_",
    [
        StartRequest(name=NAME, redirect_uri="https://lab.example.com/micromegas/callback"),
        CallbackRequest(query=Secret("code=c&state=s")),
        OutcomeRequest(state_digest=DIGEST),
    ],
)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    sent = json.loads(json.dumps(build_request(request_)))

    assert parse_request(sent) == request_


@pytest.mark.parametrize(
    "reply",
    [
        Started(authorization_url="https://id.example.com/authorize?state=s", state_digest=DIGEST),
        Accepted(),
        Unknown(),
        StillWorking(),
        Ended(outcome=LoginOutcome(is_signed_in=True, who="Alice")),
        Ended(outcome=LoginOutcome(is_signed_in=False, what="No.", remedy="Again.")),
    ],
)
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    sent = json.loads(json.dumps(build_reply(reply)))

    assert parse_reply(sent) == reply


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "start",
        {},
        {**START, "version": 2},
        {**START, "version": True},
        {**START, "action": "begin"},
        {**START, "action": ["start"]},
        {**START, "name": "elsewhere"},
        {**START, "name": 7},
        {**START, "redirect_uri": ""},
        {**START, "redirect_uri": "h" * 3000},
        {"version": 1, "action": "answer"},
        {"version": 1, "action": "answer", "query": ""},
        {"version": 1, "action": "answer", "query": "x" * (MAX_QUERY_CHARACTERS + 1)},
        {"version": 1, "action": "ending", "state_digest": "A" * 64},
        {"version": 1, "action": "ending", "state_digest": "a" * 63},
    ],
)
def test_what_is_no_request_is_none(content: object) -> None:
    assert parse_request(content) is None


@pytest.mark.parametrize(
    "content",
    [
        None,
        {"action": "accepted"},
        {"version": 2, "action": "accepted"},
        {"version": 1, "action": "done"},
        {"version": 1, "action": "started", "authorization_url": "https://id.example.com"},
        {"version": 1, "action": "started", "authorization_url": 1, "state_digest": DIGEST},
    ],
)
def test_what_is_no_reply_is_none(content: object) -> None:
    assert parse_reply(content) is None


def test_an_ending_is_believed_only_as_far_as_it_says_it_plainly_and_is_cut() -> None:
    reply = parse_reply({"version": 1, "action": "ended", "is_signed_in": "yes", "who": 7, "what": "x" * 9000})

    assert reply == Ended(outcome=LoginOutcome(is_signed_in=False, what="x" * 2000, remedy=""))


def test_no_code_and_no_state_is_in_a_representation() -> None:
    shown = repr(
        [CallbackRequest(query=Secret("code=c")), Started(authorization_url="https://x?state=s", state_digest="d")]
    )

    assert "code=c" not in shown
    assert "state=s" not in shown
