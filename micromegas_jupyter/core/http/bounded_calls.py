"""`BoundedCalls`: carries requests out, each within its deadline, a bounded number at a time; and whom these trust."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from micromegas_jupyter.core.files import FileProblem, read_shared_file
from micromegas_jupyter.core.http.answers import ExchangeFailed, FailureKind, RawAnswer
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from micromegas_jupyter.core.http.exchange import Exchange
    from micromegas_jupyter.core.protocols import Secret

MAX_BUNDLE_BYTES = 4 * 2**20

_CERTIFICATE = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]{1,65536}-----END (?:TRUSTED )?CERTIFICATE-----"
)


def environment_ca_bundle() -> str | None:
    """Return the file or folder of certificates that the environment names, as `requests` would find it."""
    # The names and their order are those of `requests`.
    found = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if found and not Path(found).exists():
        raise ConfigurationError(
            "The environment names a CA bundle that does not exist.",
            key="REQUESTS_CA_BUNDLE",
            remedy="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, or unset it.",
        )
    return found or None


def read_certificates(path: Path) -> str:
    """Return the certificates of a PEM file; whatever else stands in it is left out, and `~` in `path` is a name."""
    try:
        content, _ = read_shared_file(path, max_bytes=MAX_BUNDLE_BYTES)
    except FileProblem as problem:
        raise _refusal(problem.args[0]) from None
    # Bundles have comments in any encoding.
    certificates = "\n".join(_CERTIFICATE.findall(content.decode("latin-1")))
    if not certificates:
        raise _refusal("holds no certificate in PEM form")
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: it is not ASCII
        raise _refusal("holds a damaged certificate") from None
    return certificates


def _refusal(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The file of certificates to trust {what}.",
        key="ca_bundle",
        remedy="Correct MICROMEGAS_CA_BUNDLE or ca_bundle; it names a file of certificates in PEM form.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """How errors speak of the one who is called.

    Attributes:
        name: Its name, as a sentence begins with it.
        group: What "too many calls to" is followed by.
        remedy: What to do when no answer comes; None leaves that to the error's class.
        remedies: What to do instead where the network's failure is of such a kind.
    """

    name: str
    group: str
    remedy: str | None = None
    remedies: Mapping[FailureKind, str] = field(default_factory=dict)


class BoundedCalls:
    """Runs exchanges; safe to use from several threads.

    A name server that hangs cannot be cut off, so a call that is given up may hold its place for a while. The lock
    covers the running exchanges.

    Args:
        most: How many exchanges may run at a time.
        max_bytes: How many bytes of an answer's body are kept.
        ca_bundle: A PEM file or a folder of certificates to trust instead of the environment's choice.
        extra_ca_bundle: A PEM file of certificates to trust besides; read at once.

    Raises:
        ConfigurationError: The file of further certificates cannot be used.
    """

    def __init__(
        self, *, most: int, max_bytes: int, ca_bundle: str | None = None, extra_ca_bundle: Path | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._ca_bundle = ca_bundle
        self._extra_certificates = None if extra_ca_bundle is None else read_certificates(extra_ca_bundle)
        self._free_places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._running: set[Exchange] = set()
        self._is_closed = False

    def run(
        self,
        prepare: Callable[[], requests.PreparedRequest],
        *,
        callee: Callee,
        timeout_seconds: float,
        proxy: Secret | None = None,
        refuses_private: bool = False,
    ) -> RawAnswer:
        """Carry one request out.

        Args:
            prepare: Makes the request; called on the thread that sends it, so that secrets are revealed only there.
            callee: Named in errors.
            timeout_seconds: The total deadline, from waiting for a place to the last byte.
            proxy: The proxy to go through; None goes there directly.
            refuses_private: Whether to send nothing when the host turns out to be at an address inside a network.
        """
        # Slow to load, and not needed while a stored token is fresh.
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        from micromegas_jupyter.core.http.exchange import Exchange

        deadline = SYSTEM_CLOCK.monotonic() + timeout_seconds
        # Named even where it is the usual one: some versions of `requests` share one set of their own choice with
        # everybody, which the further certificates must not reach.
        authorities = self._ca_bundle or environment_ca_bundle() or DEFAULT_CA_BUNDLE_PATH
        if not self._free_places.acquire(timeout=timeout_seconds):
            raise ProviderUnavailable(
                f"Too many calls to {callee.group} are still waiting for an answer.", remedy=callee.remedy
            )
        exchange = Exchange(
            prepare,
            # The exchange's deadline bounds the call. This one, for each read, comes after it and only frees a thread
            # whose connection could not be cut.
            settings={"timeout": 2 * timeout_seconds, "verify": authorities},
            max_bytes=self._max_bytes,
            on_end=self._free_places.release,
            refuses_private=refuses_private,
            proxy=proxy,
            extra_certificates=self._extra_certificates,
        )
        try:
            self._register(exchange, callee)
            raw = exchange.run(timeout_seconds=max(0.0, deadline - SYSTEM_CLOCK.monotonic()))
        except ExchangeFailed as failure:
            raw = None  # on a machine that stood still, the deadline passed before a failure was seen
            if SYSTEM_CLOCK.monotonic() < deadline:
                raise ProviderUnavailable(
                    f"{callee.name} could not be reached: {failure}.",
                    remedy=callee.remedies.get(failure.kind, callee.remedy),
                ) from None
        finally:
            with self._lock:
                self._running.discard(exchange)
        if raw is None:
            raise ProviderUnavailable(
                f"{callee.name} did not answer in full within {timeout_seconds:g} seconds.", remedy=callee.remedy
            )
        return raw

    def close(self) -> None:
        """Cut running exchanges and refuse new ones; safe to call twice."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for exchange in running:
            exchange.abort()

    def _register(self, exchange: Exchange, callee: Callee) -> None:
        with self._lock:
            if not self._is_closed:
                self._running.add(exchange)
                return
        self._free_places.release()
        raise ProviderUnavailable(f"{callee.name} was not called: the connection is closed.", remedy=callee.remedy)
