"""The pages of the HTTP endpoint: `/metrics` for whoever has a credential, `/health` and `/ready` for anybody.

Listening, limits on connections and time are `http_endpoint`'s job; who may come in is `authentication`'s.
"""

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from tornado.iostream import IOStream
from tornado.web import HTTPError, RequestHandler

from micromegas_jupyter.access.audit import AccessEvent, CallFacts, Claimed
from micromegas_jupyter.config.access import READ_SCOPE
from micromegas_jupyter.errors import PermissionDenied, Rejected, ResourcesExhausted, Unavailable
from micromegas_jupyter.server.authentication import Authenticator
from micromegas_jupyter.server.readiness import ReadinessProbe

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_COLLECT_SECONDS: Final = 10.0
_REALM: Final = 'Bearer realm="micromegas"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """What the pages show.

    Attributes:
        authenticator: Tells who asks for the metrics.
        registries: The metrics, one registry after the other.
        readiness: Tells whether calls make sense now.
        needs_certificate: Whether the metrics are for clients with a certificate only.
        threads: Where numbers are collected.
        busy: The connections whose request is being answered.
    """

    authenticator: Authenticator
    registries: Sequence[CollectorRegistry]
    readiness: ReadinessProbe
    needs_certificate: bool
    threads: Executor
    busy: set[IOStream]


class Page(RequestHandler):
    """A page that is read; on its own the answer to a path that is not there."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, pages: Pages) -> None:
        """Take over what the pages show."""
        self.pages = pages

    def set_default_headers(self) -> None:
        """Send no version, and let nobody store or interpret the answer."""
        self.set_header("Server", "micromegas")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

    def prepare(self) -> None:
        """Note that the connection is no longer idle."""
        stream = self._stream()
        if stream is not None:
            self.pages.busy.add(stream)

    def on_finish(self) -> None:
        """Note that the answer is on its way."""
        stream = self._stream()
        if stream is not None:
            self.pages.busy.discard(stream)

    def compute_etag(self) -> None:
        """Nothing here is worth comparing with an earlier answer."""

    async def get(self) -> None:
        """Answer that there is no such page."""
        self._say(HTTPStatus.NOT_FOUND)

    async def head(self) -> None:
        """Answer as for GET; Tornado leaves the body out."""
        await self.get()

    def write_error(self, status_code: int, **_details: object) -> None:
        """Say no more than the status's standard phrase."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self._say(HTTPStatus(status_code))

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log defects; what a client did wrong is its own affair."""
        if typ is not None and value is not None and not isinstance(value, HTTPError):
            _LOG.error("a page could not be made", exc_info=(typ, value, tb))

    def _say(self, status: HTTPStatus) -> None:
        self.set_status(status.value)
        self.finish(f"{status.phrase}\n")

    def _stream(self) -> IOStream | None:
        stream: object = getattr(self.request.connection, "stream", None)
        return stream if isinstance(stream, IOStream) else None


class HealthPage(Page):
    """Tells anybody that the process is alive, by answering at all."""

    async def get(self) -> None:
        """Answer 200."""
        self._say(HTTPStatus.OK)


class ReadyPage(Page):
    """Tells anybody whether calls make sense now."""

    async def get(self) -> None:
        """Answer 200, or 503 with the reason, which is one of `readiness.NotReady`."""
        reason = await self.pages.readiness.find_out()
        self.set_header("Content-Type", "application/json")
        if reason is None:
            self.finish(json.dumps({"status": "ready"}) + "\n")
            return
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE.value)
        self.set_header("Retry-After", "1")
        self.finish(json.dumps({"status": "not ready", "reason": reason}) + "\n")


class MetricsPage(Page):
    """Shows the metrics in the Prometheus text format."""

    async def get(self) -> None:
        """Answer with the metrics, or say what is wrong with the credential as RFC 6750 section 3 asks."""
        if self.pages.needs_certificate and self.request.get_ssl_certificate(binary_form=True) is None:
            self._say(HTTPStatus.FORBIDDEN)
            return
        headers = {"authorization": tuple(self.request.headers.get_list("Authorization"))}
        try:
            caller = await self.pages.authenticator.authenticate(headers, self._describe)
        except Rejected:
            self.set_header(
                "WWW-Authenticate",
                f'{_REALM}, error="invalid_token"' if headers["authorization"] else _REALM,
            )
            self._say(HTTPStatus.UNAUTHORIZED)
            return
        except ResourcesExhausted as error:
            self.set_header("Retry-After", str(math.ceil(error.retry_after_seconds or 1)))
            self._say(HTTPStatus.TOO_MANY_REQUESTS)
            return
        except Unavailable:
            self.set_header("Retry-After", "1")
            self._say(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if READ_SCOPE not in caller.scopes:
            self.set_header("WWW-Authenticate", f'{_REALM}, error="insufficient_scope", scope="{READ_SCOPE}"')
            who = Claimed(issuer=caller.issuer, subject=caller.subject)
            event = AccessEvent(outcome="forbidden", reason="scope_missing", code=PermissionDenied.code, who=who)
            self.pages.authenticator.record(event, self._describe())
            self._say(HTTPStatus.FORBIDDEN)
            return
        collect = asyncio.get_running_loop().run_in_executor(self.pages.threads, self._collect)
        body = await asyncio.wait_for(collect, _COLLECT_SECONDS)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(body)

    def _collect(self) -> bytes:
        return b"".join(generate_latest(registry) for registry in self.pages.registries)

    def _describe(self) -> CallFacts:
        return CallFacts(method=f"{self.request.method} {self.request.path}", client_address=self.request.remote_ip)
