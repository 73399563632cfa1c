"""Joins validators from settings; what is costly to have anew (keys of issuers, counters) is kept between them.

Where the settings come from and when they are read again is `reloading`'s job.
"""

from collections.abc import Iterable

from micromegas_jupyter.access.admins import check_admin_entries
from micromegas_jupyter.access.api_keys import ApiKeyValidator
from micromegas_jupyter.access.daily_turns import DailyTurns
from micromegas_jupyter.access.key_sources import KeySources
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.access.multi import MultiValidator
from micromegas_jupyter.access.oidc_validator import OidcValidator
from micromegas_jupyter.access.rights import Rights
from micromegas_jupyter.config.access import API_KEY_ISSUER, AccessSettings, IssuerSetting
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Clock

_PROVIDER_TIMEOUT_SECONDS = 10.0
_MAX_DOCUMENT_BYTES = 1_000_000


class ValidatorBuilder:
    """Builds any number of validators that share the issuers' keys, the counters and the memory of warnings.

    Attributes:
        metrics: What all of them count.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.metrics = AccessMetrics()
        self._clock = clock
        self._warnings = DailyTurns(clock)
        self._http = ProviderHttp(timeout_seconds=_PROVIDER_TIMEOUT_SECONDS, max_bytes=_MAX_DOCUMENT_BYTES)
        self._sources = KeySources(http=self._http, clock=clock, metrics=self.metrics)

    def build(self, settings: AccessSettings) -> MultiValidator:
        """Return a validator of the keys and tokens that `settings` accepts; asks API keys first, calls nobody yet.

        Raises:
            ConfigurationError: The settings contradict each other.
        """
        issuers = () if settings.oidc is None else settings.oidc.issuers
        if issuers:
            check_admin_entries(settings.admins, issuers=issuers, place=settings.admins_place)
        rights = Rights(settings.roles, settings.default_roles)
        denied = split_denied(settings.denied, issuers=issuers)
        validators: list[ApiKeyValidator | OidcValidator] = []
        if settings.api_keys:
            validators.append(
                ApiKeyValidator(
                    settings.api_keys,
                    legacy=settings.legacy_api_keys,
                    rights=rights,
                    denied={name for issuer, name in denied if issuer == API_KEY_ISSUER},
                    clock=self._clock,
                    warnings=self._warnings,
                )
            )
        if settings.oidc is not None:
            validators.append(
                OidcValidator(
                    settings.oidc,
                    settings.admins,
                    http=self._http,
                    clock=self._clock,
                    rights=rights,
                    denied=denied,
                    metrics=self.metrics,
                    sources=self._sources,
                )
            )
        return MultiValidator(validators)

    def forget_all_but(self, settings: AccessSettings) -> None:
        """Let go of the keys of issuers that are no longer accepted, and report fetches for those that are."""
        issuers = () if settings.oidc is None else settings.oidc.issuers
        self._sources.retain(issuers)
        for setting in issuers:
            self.metrics.expect_key_fetches(setting.issuer)

    def close(self) -> None:
        """Release what the validators share."""
        self._sources.close()
        self._http.close()


def split_denied(entries: Iterable[str], *, issuers: Iterable[IssuerSetting]) -> frozenset[tuple[str, str]]:
    """Return each entry `issuer|subject` as a pair; API keys have the issuer `api_key`.

    An issuer's own name may hold a bar and a subject often does, so that the one that fits in full decides. An entry
    that fits no issuer, which the settings refuse, denies nobody.
    """
    names = sorted({API_KEY_ISSUER, *(setting.issuer for setting in issuers)}, key=len, reverse=True)
    pairs = set()
    for entry in entries:
        issuer = next((name for name in names if entry.startswith(f"{name}|")), None)
        if issuer is not None:
            pairs.add((issuer, entry.removeprefix(f"{issuer}|")))
    return frozenset(pairs)
