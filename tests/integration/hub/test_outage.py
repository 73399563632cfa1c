"""An identity provider that is away for a while: kernels go on, then say what to do, and come back by themselves."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.hub.tokens import FAILURE_PAUSE_SECONDS
from tests.integration.hub.running import until
from tests.integration.hub.test_tokens import post_token
from tests.integration.hub.test_with_time import asked_by

# The first test of the folder starts the Hub.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

ASK = "%%sql me <<\nSELECT current_user() AS me"
TRIES = 20
CALLERS = 20


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
