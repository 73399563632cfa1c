"""What the doctor finds out from others: what is said of a token, the clock, and a server that does not answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.flows.hub import HubService, HubTokenProvider, find_hub
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.http import HubHttp
from micromegas_jupyter.doctor.examination import check_clock, check_issuer, check_server, check_token
from micromegas_jupyter.doctor.findings import Outcome
from tests.fakes.clock import FakeClock
from tests.fakes.hub_service import FakeHubService
from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.stored_sign_in import DatedCalls
from tests.unit.doctor.cases import bare_case

if TYPE_CHECKING:
    from pathlib import Path


def test_a_person_s_token_says_whose_it_is(clock: FakeClock) -> None:
    idp = ScriptedProvider(clock=clock)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    finding = check_token(provider, clock)

    assert finding.found == "of Alice Example, valid for 1 h 0 min"
    assert finding.facts["renews"] is True


def test_a_token_that_names_nobody_is_in_order_all_the_same(clock: FakeClock) -> None:
    token = {"access_token": "opaque", "token_type": "Bearer", "expires_at": int(clock.now().timestamp()) + 600}
    provider = OidcAuthProvider(
        "https://id.example.com", "notebook", token=token, bearer=Bearer.ACCESS_TOKEN, clock=clock
    )

    finding = check_token(provider, clock)

    assert (finding.outcome, finding.found) == (Outcome.OK, "of somebody whom it does not name")
    assert "it does not renew by itself" in finding.details


def test_a_token_of_the_hub_says_whose_it_is_and_how_long_it_lives_on(clock: FakeClock) -> None:
    with FakeHubService() as hub:
        service = HubService(find_hub(hub.environ), http=HubHttp())

        finding = check_token(HubTokenProvider(service, clock=clock), clock)

    assert finding.found == "of Alice Martin, through JupyterHub, valid for 1 h 0 min"


class TestClock:
    """The difference is said, also when it is too large to be allowed for."""

    def _measured(self, clock: FakeClock, ahead: timedelta) -> ProviderConnection:
        idp = ScriptedProvider(clock=clock)
        calls = DatedCalls(idp, FakeClock(clock.now() + ahead))
        connection = ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)
        check_issuer(connection, clock)
        return connection

    @pytest.mark.parametrize(
        ("ahead", "said"),
        [
            (timedelta(minutes=7, seconds=20), "7 min behind"),
            (timedelta(hours=25, minutes=30), "25 h 30 min behind"),
            (timedelta(days=-3, hours=-1), "3 days ahead of"),
        ],
    )
    def test_a_clock_that_is_off_is_a_failure(self, clock: FakeClock, ahead: timedelta, said: str) -> None:
        finding = check_clock(self._measured(clock, ahead))

        assert finding.outcome is Outcome.FAILED
        assert finding.found == f"this machine's clock is {said} the provider's"
        assert finding.facts["offset_seconds"] == pytest.approx(ahead.total_seconds(), abs=2)

    def test_without_a_measurement_nothing_is_claimed(self, clock: FakeClock) -> None:
        connection = ProviderConnection("https://id.example.com", "notebook", None, http=None, clock=clock)

        assert check_clock(connection).outcome is Outcome.SKIPPED


class TestServerThatDoesNotAnswer:
    """What to do depends on whether anybody has named it."""

    def test_with_nothing_set_the_remedy_names_server_and_sign_in(self, tmp_path: Path) -> None:
        case = bare_case(tmp_path)
        # The default address may be served by somebody on this machine.
        case = replace(case, settings=replace(case.settings, uri="grpc://127.0.0.1:1"))

        finding = check_server(case, None, token_failed=False)

        assert (finding.outcome, finding.code, finding.exit_code) == (Outcome.FAILED, "AVAIL003", 4)
        for name in ("MICROMEGAS_ANALYTICS_URI", "MICROMEGAS_OIDC_ISSUER", "MICROMEGAS_OIDC_CLIENT_ID"):
            assert name in finding.remedy
