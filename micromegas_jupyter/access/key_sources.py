"""All issuers' key sources: the same setting gives the same source, so that a reloaded configuration keeps its keys.

What a source does is `key_source`'s job; which issuers there are is the configuration's.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from micromegas_jupyter.access.key_fetch import ProviderDocuments
from micromegas_jupyter.access.key_policy import KeyPolicy
from micromegas_jupyter.access.key_source import KeySource
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import Clock

MAX_SOURCES = 1000


class CloseableDocuments(ProviderDocuments, Protocol):
    """A way to a provider's documents that is closed when it is not needed any more."""

    def close(self) -> None:
        """Cut running calls; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What of an issuer's setting decides which keys it has."""

    issuer: str
    tenant: str | None
    discovery_url: str | None
    jwks_url: str | None
    jwks_file: str | None
    ca_file: str | None
    bearer_token_file: str | None


class KeySources:
    """Makes and remembers one source for each setting and policy; safe to share between threads.

    One lock guards what is remembered. The `MAX_SOURCES` that were asked for last are kept.

    Args:
        http: The way to the providers whose setting names no `ca_file`; the caller closes it.
        clock: Tells the time.
        metrics: Where the sources report.
        http_for_ca: Makes the way to the providers that only the certificates in a file vouch for; closed here.
    """

    def __init__(
        self,
        *,
        http: ProviderDocuments,
        clock: Clock,
        metrics: AccessMetrics | None = None,
        http_for_ca: Callable[[str], CloseableDocuments] | None = None,
    ) -> None:
        self._http = http
        self._clock = clock
        self._metrics = metrics
        self._http_for_ca = http_for_ca or _trusting_only
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[_Origin, KeyPolicy], KeySource] = OrderedDict()
        self._https: dict[str, CloseableDocuments] = {}
        # Calls that began before a reload may still be waiting for these.
        self._retired: list[CloseableDocuments] = []

    def source_of(self, setting: IssuerSetting, policy: KeyPolicy) -> KeySource:
        """Return the source of this issuer's keys, the same one as long as nothing about them has changed.

        Raises:
            ConfigurationError: The setting's `ca_file` does not exist.
        """
        name = (_origin_of(setting), policy)
        with self._lock:
            known = self._sources.get(name)
            if known is None:
                http = self._http if setting.ca_file is None else self._http_of(setting.ca_file)
                known = KeySource(setting, http=http, clock=self._clock, policy=policy, metrics=self._metrics)
                self._sources[name] = known
            self._sources.move_to_end(name)
            self._forget(list(self._sources)[:-MAX_SOURCES])
            closing, self._retired = self._retired[:-MAX_SOURCES], self._retired[-MAX_SOURCES:]
        _close(closing)
        return known

    def retain(self, settings: Iterable[IssuerSetting]) -> None:
        """Forget the sources of all other settings, and of two policies for one setting the one asked for earlier.

        A source that is still in use goes on; what it fetches with is closed the next time.
        """
        wanted = {_origin_of(setting) for setting in settings}
        with self._lock:
            closing, self._retired = self._retired, []
            latest = {origin: (origin, policy) for origin, policy in self._sources}
            self._forget([name for name in self._sources if name[0] not in wanted or latest[name[0]] != name])
            for source in self._sources.values():
                source.report_age()
        _close(closing)

    def close(self) -> None:
        """Close what was made here and forget all sources; safe to call twice."""
        with self._lock:
            closing = [*self._retired, *self._https.values()]
            self._retired, self._https = [], {}
            self._sources.clear()
        _close(closing)

    def _http_of(self, ca_file: str) -> CloseableDocuments:
        if ca_file not in self._https:
            self._https[ca_file] = self._http_for_ca(ca_file)
        return self._https[ca_file]

    def _forget(self, names: list[tuple[_Origin, KeyPolicy]]) -> None:
        if not names:
            return
        for name in names:
            del self._sources[name]
        origins = {origin for origin, _policy in self._sources}
        if self._metrics is not None:
            for issuer in {origin.issuer for origin, _policy in names} - {origin.issuer for origin in origins}:
                self._metrics.forget_keys(issuer)
        for ca_file in self._https.keys() - {origin.ca_file for origin in origins}:
            self._retired.append(self._https.pop(ca_file))


def _close(https: Iterable[CloseableDocuments]) -> None:
    for http in https:
        http.close()


def _origin_of(setting: IssuerSetting) -> _Origin:
    return _Origin(
        issuer=setting.issuer,
        tenant=setting.tenant,
        discovery_url=setting.discovery_url,
        jwks_url=setting.jwks_url,
        jwks_file=setting.jwks_file,
        ca_file=setting.ca_file,
        bearer_token_file=setting.bearer_token_file,
    )


def _trusting_only(ca_file: str) -> CloseableDocuments:
    return ProviderHttp(ca_bundle=ca_file)
