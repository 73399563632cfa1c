"""How a check waits for keys: in its thread, outside of it, or not at all."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import (
    KeyPolicy,
    KeysOnTheWay,
    KeySource,
    KeyWait,
    current_key_wait,
    waiting_for_keys,
)
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import Unavailable
from tests.fakes.mint import ISSUER, ec_key, rsa_key
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from concurrent.futures import Future

    from micromegas_jupyter.oidc.keys import KeySet


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(keys=(rsa_key(),))


def awaited(source: KeySource, *, seen: KeySet | None = None) -> Future[KeySet | None]:
    ask = source.current if seen is None else partial(source.newer_than, seen)
    with waiting_for_keys(KeyWait.OUTSIDE), pytest.raises(KeysOnTheWay) as caught:
        ask()
    return caught.value.fetch


def test_a_check_waits_in_its_thread_unless_another_way_is_asked_for():
    with waiting_for_keys(KeyWait.OUTSIDE):
        inside = current_key_wait()

    assert (inside, current_key_wait()) == (KeyWait.OUTSIDE, KeyWait.IN_THREAD)


def test_the_way_goes_with_the_context_to_another_thread():
    with waiting_for_keys(KeyWait.NOT_AT_ALL):
        context = copy_context()

    found = asyncio.run(asyncio.to_thread(context.run, current_key_wait))

    assert found is KeyWait.NOT_AT_ALL


class TestOutside:
    """Nobody's thread is held: the fetch runs in the background, and all who need it are given the same one."""

    def test_all_are_given_the_one_fetch(self, source, provider, background):
        fetches = [awaited(source) for _ in range(100)]

        assert set(fetches) == {fetches[0]}
        assert len(background.waiting) == 1
        assert provider.requested == []

    def test_after_the_fetch_the_keys_are_there(self, source, background):
        fetch = awaited(source)
        background.run()

        with waiting_for_keys(KeyWait.OUTSIDE):
            assert source.current() is fetch.result(0)

    def test_a_fetch_that_fails_ends_too(self, source, provider, background):
        provider.go_down()
        fetch = awaited(source)

        background.run()

        assert fetch.result(0) is None

    def test_a_newer_set_is_fetched_once_and_from_the_known_address(self, source, provider, background):
        first = source.current()
        provider.publish(ec_key())
        asked = len(provider.requested)
        fetches = {awaited(source, seen=first) for _ in range(10)}

        background.run()

        with waiting_for_keys(KeyWait.OUTSIDE):
            assert [key.key_id for key in source.newer_than(first).keys] == ["ec"]
        assert len(fetches) == 1
        assert provider.requested[asked:] == [f"{ISSUER}/keys"]

    def test_keys_that_may_be_used_are_used_at_once(self, source, provider, background):
        first = source.current()

        with waiting_for_keys(KeyWait.OUTSIDE):
            assert source.current() is first
        assert background.waiting == []

    def test_keys_that_are_too_old_to_be_used_without_asking_are_waited_for(self, source, clock, background):
        source.current()
        clock.advance(3600)
        fetch = awaited(source)

        background.run()

        with waiting_for_keys(KeyWait.OUTSIDE):
            assert source.current() is fetch.result(0)

    def test_without_a_thread_for_the_fetch_it_has_failed(self, provider, clock):
        def have_no_thread(_work: object) -> None:
            raise RuntimeError("can't start new thread")

        source = KeySource(
            IssuerSetting(issuer=ISSUER),
            http=provider,
            clock=clock,
            policy=KeyPolicy(),
            start_background=have_no_thread,
        )

        with waiting_for_keys(KeyWait.OUTSIDE), pytest.raises(Unavailable):
            source.current()


class TestNotAtAll:
    """What there is counts, and nobody is asked."""

    def test_without_keys_it_is_an_outage_and_no_fetch(self, source, provider, background):
        with waiting_for_keys(KeyWait.NOT_AT_ALL), pytest.raises(Unavailable):
            source.current()

        assert (provider.requested, background.waiting) == ([], [])

    def test_without_keys_nobody_waits_for_the_fetch_under_way(self, source):
        awaited(source)

        with waiting_for_keys(KeyWait.NOT_AT_ALL), pytest.raises(Unavailable):
            source.current()

    def test_old_keys_are_used_while_the_provider_is_being_asked(self, source, clock):
        first = source.current()
        clock.advance(3600)
        awaited(source)

        with waiting_for_keys(KeyWait.NOT_AT_ALL):
            assert source.current() is first

    def test_whether_there_are_newer_keys_is_not_known(self, source, background):
        first = source.current()

        with waiting_for_keys(KeyWait.NOT_AT_ALL), pytest.raises(Unavailable):
            source.newer_than(first)
        awaited(source, seen=first)
        with waiting_for_keys(KeyWait.NOT_AT_ALL), pytest.raises(Unavailable):
            source.newer_than(first)

        assert len(background.waiting) == 1
