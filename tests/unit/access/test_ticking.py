"""Tests of `access.ticking`."""

import logging
import subprocess
import sys
import threading

from micromegas_jupyter.access.config import Ticker


def test_it_ticks_again_and_again():
    done, rounds = threading.Event(), []

    def tick() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            done.set()

    ticker = Ticker(tick, interval_seconds=0.001, name="ticks")
    ticker.start()

    assert done.wait(30)
    ticker.stop()


def test_after_stopping_nothing_ticks_any_more():
    rounds: list[int] = []
    begun = threading.Event()

    def tick() -> None:
        rounds.append(1)
        begun.set()

    ticker = Ticker(tick, interval_seconds=0.001, name="ticks")
    ticker.start()
    assert begun.wait(30)
    ticker.stop()
    before = len(rounds)

    threading.Event().wait(0.05)

    assert len(rounds) == before
    assert "ticks" not in {thread.name for thread in threading.enumerate()}


def test_stopping_twice_and_before_starting_does_no_harm():
    ticker = Ticker(lambda: None, interval_seconds=60, name="ticks")

    ticker.stop()
    ticker.start()
    ticker.stop()
    ticker.stop()


def test_a_tick_may_stop_the_ticker():
    done = threading.Event()

    def tick() -> None:
        ticker.stop()
        done.set()

    ticker = Ticker(tick, interval_seconds=0.001, name="ticks")
    ticker.start()

    assert done.wait(30)


def test_a_tick_that_fails_is_told_and_not_the_last(caplog):
    done, rounds = threading.Event(), []

    def tick() -> None:
        rounds.append(1)
        if len(rounds) == 4:
            done.set()
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR, "micromegas_jupyter.access"):
        ticker = Ticker(tick, interval_seconds=0.001, name="ticks")
        ticker.start()
        assert done.wait(30)
        ticker.stop()

    assert [vars(record)["kind"] for record in caplog.records] == ["KeyError"]
    assert "secret" not in caplog.text


def test_a_failure_that_comes_back_is_told_again(caplog):
    done, rounds = threading.Event(), []

    def tick() -> None:
        rounds.append(1)
        if len(rounds) == 4:
            done.set()
        if len(rounds) in {1, 3}:
            raise KeyError("secret")

    with caplog.at_level(logging.ERROR, "micromegas_jupyter.access"):
        ticker = Ticker(tick, interval_seconds=0.001, name="ticks")
        ticker.start()
        assert done.wait(30)
        ticker.stop()

    assert [vars(record)["kind"] for record in caplog.records] == ["KeyError"] * 2


def test_it_does_not_keep_the_process_alive():
    program = (
        "from micromegas_jupyter.access.config import Ticker; "
        "Ticker(lambda: None, interval_seconds=600, name='ticks').start()"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
