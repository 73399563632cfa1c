"""Kernels that run for days, outages, named servers, sign-out, stopped servers, and a Hub that starts again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.hub.tokens import FAILURE_PAUSE_SECONDS
from tests.fakes.raw_client import claims_of
from tests.integration.hub.conftest import TOKEN_LIFETIME_SECONDS
from tests.integration.hub.running import until
from tests.integration.hub.test_tokens import post_token

# The first test of the folder starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

ASK = "%%sql rows <<\nSELECT current_user AS who"
SHORT_LIFETIMES, LIFETIMES = 3, 10
TRIES = 20
CALLERS = 20


def asked_by(kernel):
    """Return as whom a cell of the kernel runs."""
    cell = kernel.run(ASK)
    assert cell.reply["status"] == "ok", cell
    return kernel.run("print(rows['who'][0])").printed.strip()


def test_a_named_server_gets_its_persons_token_and_loses_it_when_it_is_culled(signed_in):
    signed_in.start_server("alice", "second")
    token = signed_in.server_token("alice", "second")
    running = post_token(signed_in, token)

    # What the culler does.
    signed_in.stop_server("alice", "second")
    stopped = post_token(signed_in, token)

    assert claims_of(running.json()["access_token"])["sub"] == "alice"
    assert (stopped.status_code, stopped.json()["error"]) == (401, "invalid_token")


def test_after_a_hub_sign_out_running_servers_go_on_and_the_service_asks_the_browser_to_sign_in(
    signed_in,
):
    browser = signed_in.browser()
    browser.sign_in("bob")
    browser.sign_out()

    asked = browser.open(f"{signed_in.service_url}start/{'a' * 43}")

    assert (asked.status_code, "/hub/api/oauth2/authorize" in asked.headers["Location"]) == (302, True)
    assert post_token(signed_in, signed_in.server_token("bob")).status_code == 200


def test_a_sign_in_that_ended_at_the_provider_is_told_and_a_new_one_mends_it(signed_in):
    token = signed_in.server_token("bob")
    signed_in.end_at_provider("bob")

    until(lambda: post_token(signed_in, token).status_code != 200, "a refusal")
    refused = post_token(signed_in, token)
    signed_in.browser().sign_in("bob")
    mended = post_token(signed_in, token)

    assert (refused.status_code, refused.json()["error"]) == (409, "sign_in_again")
    assert claims_of(mended.json()["access_token"])["sub"] == "bob"


def test_a_token_of_the_person_that_was_given_to_another_program_gets_nothing(signed_in):
    name = signed_in.people["alice"].name
    made = signed_in.api("POST", f"users/{name}/tokens", json={"scopes": ["read:users:name!user"]})

    answer = post_token(signed_in, made.json()["token"])

    assert (answer.status_code, answer.json()["error"]) == (403, "not_their_server")


def test_kernels_go_on_until_their_token_ends_then_say_what_to_do_and_work_again_when_the_provider_is_back(
    signed_in, capsys
):
    provider, token = signed_in.provider, signed_in.server_token("alice")
    with signed_in.kernel("alice") as kernel, ExitStack() as outage:
        kernel.run("%load_ext micromegas_jupyter")
        assert asked_by(kernel) == "alice"
        before = provider.counts()

        for _try in range(TRIES):
            hung_up, logged = provider.counts()["hangUps"], len(signed_in.log)
            ends_at = post_token(signed_in, token).json()["expires_at"]
            began = SYSTEM_CLOCK.monotonic()
            outage.enter_context(provider.outage())
            still = kernel.run(ASK)
            if SYSTEM_CLOCK.now().timestamp() < ends_at:
                break
            outage.close()  # the machine has too much to do to tell
        else:
            pytest.fail("no cell ended while its token was valid")
        assert still.reply["status"] == "ok", still

        threading.Event().wait(max(0.0, ends_at - SYSTEM_CLOCK.now().timestamp()))
        until(lambda: post_token(signed_in, token).status_code != 200, "the end of the token")
        told = kernel.run(ASK)
        with ThreadPoolExecutor(CALLERS) as pool:
            refused = list(pool.map(lambda _each: post_token(signed_in, token), range(CALLERS)))
        hang_ups = provider.counts()["hangUps"] - hung_up
        lasted = SYSTEM_CLOCK.monotonic() - began
        failed = f"The sign-in of {signed_in.people['alice'].name} could not be refreshed"
        renewals = signed_in.log[logged:].count(failed)
        assert told.reply["ename"] == "ProviderUnavailable"
        said = "".join(told.reply["traceback"])
        assert "JupyterHub cannot reach the identity provider." in said
        assert "Your sign-in is not at fault. Try again in a moment." in said
        assert {(each.status_code, each.json()["error"]) for each in refused} == {(503, "provider_unavailable")}
        assert all(int(each.headers["Retry-After"]) > 0 for each in refused)
        assert 1 <= renewals <= 2 + lasted / FAILURE_PAUSE_SECONDS
        # Bob's server and the Flight SQL server have reasons of their own to ask.
        assert 1 <= hang_ups < CALLERS

        outage.close()
        until(lambda: post_token(signed_in, token).status_code == 200, "a token")
        assert asked_by(kernel) == "alice"
    after = provider.counts()
    assert after["reuses"] == 0
    assert after["renewals"] > before["renewals"]
    with capsys.disabled():
        print(f"\nan outage of {lasted:.0f} s: the provider was asked {hang_ups} times")


@pytest.mark.long
def test_kernels_go_on_while_the_hub_starts_again_with_the_values_for_the_chart(signed_in, old_kernel):
    token = signed_in.server_token("alice")

    signed_in.stop()
    signed_in.start(as_chart=True)

    assert post_token(signed_in, token).status_code == 200
    assert asked_by(old_kernel) == "alice"


def test_a_kernel_older_than_ten_token_lifetimes_still_queries_as_its_person(signed_in, old_kernel, pytestconfig):
    lifetimes = LIFETIMES if pytestconfig.getoption("--long") else SHORT_LIFETIMES
    missing = signed_in.kernel_started_at + lifetimes * TOKEN_LIFETIME_SECONDS - SYSTEM_CLOCK.monotonic()
    threading.Event().wait(max(0.0, missing))

    assert asked_by(old_kernel) == "alice"


def test_no_refresh_token_was_used_twice_however_many_asked(signed_in):
    before = signed_in.provider.counts()
    tokens = [signed_in.server_token(login) for login in ("alice", "bob")] * 10

    ends = [post_token(signed_in, token).json()["expires_at"] for token in tokens[:2]]
    left = max(ends) - SYSTEM_CLOCK.now().timestamp() - signed_in.margin_seconds
    threading.Event().wait(max(0.0, left))
    with ThreadPoolExecutor(20) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda token: post_token(signed_in, token), tokens)]
    after = signed_in.provider.counts()

    assert statuses == [200] * len(tokens)
    assert after["reuses"] == 0
    assert after["renewals"] >= before["renewals"] + 2
