from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.platforms import GoogleMetadataSource
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved
from tests.fakes.mint import mint
from tests.fakes.platform_calls import PlatformScript, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.clock import FakeClock

FLAVOR = {"metadata-flavor": "Google"}


def source(http: PlatformScript, clock: FakeClock, environ: Mapping[str, str] | None = None) -> GoogleMetadataSource:
    return GoogleMetadataSource(environ or {}, audience="https://lake", http=http, clock=clock)


def test_the_metadata_server_is_asked_for_the_audience(clock: FakeClock) -> None:
    token = mint(audience="https://lake")
    http = PlatformScript(answer(f"{token}\n", headers=FLAVOR))

    fetched = source(http, clock).fetch()

    assert fetched.text.reveal() == token
    assert http.asked[0].url == (
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity"
        "?audience=https%3A%2F%2Flake&format=full"
    )
    assert http.asked[0].headers == {"Metadata-Flavor": "Google"}


def test_the_variable_of_googles_libraries_names_another_host(clock: FakeClock) -> None:
    http = PlatformScript(answer(mint(audience="https://lake"), headers=FLAVOR))

    source(http, clock, {"GCE_METADATA_HOST": "169.254.169.254"}).fetch()

    assert http.asked[0].url.startswith("http://169.254.169.254/computeMetadata/v1/")


@pytest.mark.parametrize("headers", [{}, {"metadata-flavor": "google"}, {"metadata-flavor": "Other"}])
def test_an_answer_without_googles_mark_is_not_believed(clock: FakeClock, headers: dict[str, str]) -> None:
    with pytest.raises(ProviderMisbehaved, match="not from Google's metadata server"):
        source(PlatformScript(answer(mint(audience="https://lake"), headers=headers)), clock).fetch()


def test_a_refusal_is_a_failed_login(clock: FakeClock) -> None:
    with pytest.raises(LoginFailed, match="status 404") as caught:
        source(PlatformScript(answer("not found", status=404, headers=FLAVOR)), clock).fetch()

    assert "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE" in caught.value.remedy


@pytest.mark.parametrize("body", ["", "<html> </html>", b"\xff\xfe", "opaque", mint(audience="other")])
def test_an_answer_without_a_jwt_for_the_audience_is_refused(clock: FakeClock, body: object) -> None:
    with pytest.raises(ProviderMisbehaved):
        source(PlatformScript(answer(body, headers=FLAVOR)), clock).fetch()
