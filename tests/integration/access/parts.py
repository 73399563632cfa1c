"""What the tests of a validator at a real provider share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from micromegas_jupyter.access import OidcValidator
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from tests.fakes.mint import ec_key, mint
from tests.fakes.raw_client import RawClient

if TYPE_CHECKING:
    from micromegas_jupyter.core.http import HttpAnswer, ProviderHttp
    from micromegas_jupyter.core.system import Clock, Secret
    from tests.integration.other_provider.running import OtherProvider


class Minter:
    """Gets a service account's access tokens from the provider, by hand."""

    def __init__(self, provider: OtherProvider) -> None:
        self._client = RawClient(provider.issuer, provider.client_id)
        self._account = (provider.service_client_id, provider.service_secret.reveal())
        self._fields = {"grant_type": "client_credentials", "resource": provider.resource}

    def token(self) -> str:
        response = self._client.post("token_endpoint", self._fields, basic=self._account)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])


class CountedHttp:
    """Passes fetches on over the network and notes when each began."""

    def __init__(self, http: ProviderHttp, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._lock = threading.Lock()
        self.began: list[tuple[float, str]] = []

    def fetch_json(
        self, url: str, *, headers: dict[str, str | Secret] | None = None, refuses_private: bool = False
    ) -> HttpAnswer:
        with self._lock:
            self.began.append((self._clock.monotonic(), url))
        return self._http.fetch_json(url, headers=headers, refuses_private=refuses_private)


def validator_of(
    provider: OtherProvider, http: CountedHttp, clock: Clock, *, cool_down_seconds: int = 30, cache_size: int = 1000
) -> OidcValidator:
    settings = OidcServerSettings(
        issuers=(IssuerSetting(issuer=provider.issuer, audiences=(provider.resource,)),),
        jwks_cool_down_seconds=cool_down_seconds,
        token_cache_size=cache_size,
    )
    return OidcValidator(settings, http=http, clock=clock)  # type: ignore[arg-type]


def unknown_key_token(provider: OtherProvider, clock: Clock, number: int) -> str:
    """A token in which all is right but that nobody has its key."""
    now = int(clock.now().timestamp())
    return mint(
        key=ec_key(),
        issuer=provider.issuer,
        audience=provider.resource,
        header={"kid": f"unknown{number}", "typ": "at+jwt"},
        iat=now,
        exp=now + 300,
    )
