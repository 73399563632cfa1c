from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.hub.sign_ins import LIFETIME_SECONDS, MAX_PER_OWNER, MAX_SIGN_INS, SignIn, SignIns

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

ANSWER = Secret("code=c&state=s")


@pytest.fixture
def sign_ins(clock: FakeClock) -> SignIns:
    return SignIns(clock=clock, randomness=SYSTEM_RANDOMNESS)


def begin(sign_ins: SignIns, state: str = "state", *, owner: str = "alice") -> SignIn:
    return sign_ins.begin(owner, state=state, authorization_url=Secret("https://id.example.com/auth"))


def test_a_sign_in_is_found_by_its_name_and_by_its_state(sign_ins: SignIns) -> None:
    sign_in = begin(sign_ins)

    assert sign_ins.by_name(sign_in.name) is sign_ins.by_state("state") is sign_in
    assert (sign_ins.by_name("other"), sign_ins.by_state("other")) == (None, None)


def test_its_address_and_its_name_are_not_shown(sign_ins: SignIns) -> None:
    sign_in = begin(sign_ins)

    assert "https" not in repr(sign_in)
    assert sign_in.name not in repr(sign_in)


def test_it_is_forgotten_after_ten_minutes(sign_ins: SignIns, clock: FakeClock) -> None:
    sign_in = begin(sign_ins)

    clock.advance(LIFETIME_SECONDS)

    assert (sign_ins.by_name(sign_in.name), sign_ins.by_state("state"), len(sign_ins)) == (None, None, 0)


def test_a_state_is_begun_once(sign_ins: SignIns) -> None:
    begin(sign_ins)

    with pytest.raises(ValueError, match="state"):
        begin(sign_ins, owner="bob")


def test_who_begins_too_many_loses_the_oldest_and_nobody_else_does(sign_ins: SignIns) -> None:
    theirs = begin(sign_ins, "bobs", owner="bob")
    first = begin(sign_ins, "first")

    for number in range(MAX_PER_OWNER):
        begin(sign_ins, f"state {number}")

    assert sign_ins.by_name(first.name) is None
    assert sign_ins.by_name(theirs.name) is theirs
    assert len(sign_ins) == MAX_PER_OWNER + 1


def test_there_are_never_more_than_the_limit(sign_ins: SignIns) -> None:
    for number in range(MAX_SIGN_INS + 5):
        begin(sign_ins, f"state {number}", owner=f"person {number}")

    assert len(sign_ins) == MAX_SIGN_INS


def test_an_answer_is_given_once(sign_ins: SignIns) -> None:
    async def run() -> list[Secret | None]:
        sign_in = begin(sign_ins)
        waiting = [asyncio.create_task(sign_ins.take_answer(sign_in, timeout_seconds=60)) for _each in range(3)]
        await asyncio.sleep(0)
        sign_ins.hand_over(sign_in, ANSWER)
        return list(await asyncio.gather(*waiting))

    assert sorted(map(str, asyncio.run(run()))) == ["None", "None", "Secret(***)"]
    assert len(sign_ins) == 0


def test_who_waits_in_vain_is_told_and_may_ask_again(sign_ins: SignIns) -> None:
    async def run() -> tuple[Secret | None, int, Secret | None]:
        sign_in = begin(sign_ins)
        first = await sign_ins.take_answer(sign_in, timeout_seconds=0)
        sign_ins.hand_over(sign_in, ANSWER)
        return first, sign_in.waiting, await sign_ins.take_answer(sign_in, timeout_seconds=60)

    assert asyncio.run(run()) == (None, 0, ANSWER)


def test_an_answer_takes_the_state_out_of_the_game(sign_ins: SignIns) -> None:
    sign_in = begin(sign_ins)

    sign_ins.hand_over(sign_in, ANSWER)

    assert sign_ins.by_state("state") is None
    assert sign_ins.by_name(sign_in.name) is sign_in
