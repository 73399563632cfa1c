from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.platforms import GithubActionsSource
from micromegas_jupyter.errors import ConfigurationError, LoginFailed, ProviderMisbehaved
from tests.fakes.mint import mint
from tests.fakes.platform_calls import PlatformScript, answer

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock

ENVIRON = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://run.actions.example.com/42/idtoken?api-version=2.0",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3same",
}


def source(http: PlatformScript, clock: FakeClock, audience: str = "lake", **changes: str) -> GithubActionsSource:
    return GithubActionsSource({**ENVIRON, **changes}, audience=audience, http=http, clock=clock)


def test_the_runner_is_asked_for_the_audience_with_its_own_token(clock: FakeClock) -> None:
    token = mint(audience="https://lake.example.com/?a&b")
    http = PlatformScript(answer({"count": 1, "value": token}))

    fetched = source(http, clock, "https://lake.example.com/?a&b").fetch()

    assert fetched.text.reveal() == token
    asked = http.asked[0]
    assert asked.url == (
        "https://run.actions.example.com/42/idtoken?api-version=2.0&audience=https%3A%2F%2Flake.example.com%2F%3Fa%26b"
    )
    assert asked.headers["Authorization"] == "Bearer s3same"


def test_an_address_without_a_query_gets_one(clock: FakeClock) -> None:
    http = PlatformScript(answer({"value": mint()}))

    source(http, clock, ACTIONS_ID_TOKEN_REQUEST_URL="https://run.actions.example.com/idtoken").fetch()

    assert http.asked[0].url == "https://run.actions.example.com/idtoken?audience=lake"


@pytest.mark.parametrize("variable", list(ENVIRON))
def test_a_job_without_the_permission_is_told_which_one(clock: FakeClock, variable: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source(PlatformScript(answer({})), clock, **{variable: ""})

    assert caught.value.key == variable
    assert "id-token: write" in caught.value.remedy


def test_a_refusal_is_a_failed_login(clock: FakeClock) -> None:
    with pytest.raises(LoginFailed, match="status 403"):
        source(PlatformScript(answer({"message": "no"}, status=403)), clock).fetch()


@pytest.mark.parametrize(
    "body", [{}, [], "text", b"\xff", {"value": ""}, {"value": 7}, {"value": "opaque"}, {"value": mint(audience="x")}]
)
def test_an_answer_without_a_jwt_for_the_audience_is_refused(clock: FakeClock, body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        source(PlatformScript(answer(body)), clock).fetch()
