"""What the addresses for kernels have in common: the caller's Hub token, JSON in and out, refusals in one form.

What each address does is its handler's.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from tornado import web

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.hub.caller_limits import client_address
from micromegas_jupyter.hub.callers import check_caller
from micromegas_jupyter.hub.refusals import Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from micromegas_jupyter.hub.parts import ServiceParts

MAX_BODY_BYTES: Final = 64 * 1024
_MAX_TOKEN_CHARACTERS: Final = 1024
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_SCHEME: Final = "bearer "


class JsonHandler(web.RequestHandler):
    """Answers kernels; no cookie counts here, so there is nothing that another site could make a browser do.

    Args:
        parts: What all handlers share.
    """

    event = "refused"
    """The audit event of a refusal."""

    def initialize(self, *, parts: ServiceParts) -> None:
        """Take what all handlers share."""
        self.parts = parts
        self.owner_name: str | None = None

    async def owner(self) -> str:
        """Return the Hub's name of the person whose server calls.

        Raises:
            Refused: It is no such server, it or its address calls too often, or it could read refresh tokens by itself.
        """
        found = await self.parts.limits.owner_of(
            self._hub_token(), address=client_address(self.request), ask=self.parts.hub.owner_of
        )
        self.owner_name = found.name
        return check_caller(found)

    def body_members(self) -> Mapping[str, object]:
        """Return the request's JSON object; an empty body is an empty object.

        Raises:
            Refused: It is none.
        """
        if not self.request.body:
            return {}
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise bad_request("The request's body is no JSON object.")
        return body

    def send(self, status: int, members: Mapping[str, object]) -> None:
        """Answer with a JSON object."""
        self.set_status(status)
        self.finish(json.dumps(members))

    def _hub_token(self) -> Secret | None:
        text = self.request.headers.get("Authorization", "")
        token = text[len(_SCHEME) :].strip()
        if text[: len(_SCHEME)].lower() != _SCHEME or not token or len(token) > _MAX_TOKEN_CHARACTERS:
            return None
        return Secret(token) if token.isascii() and token.isprintable() else None

    def set_default_headers(self) -> None:
        """Set the headers of every answer."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def check_xsrf_cookie(self) -> None:
        """Check nothing: only the Authorization header lets anybody in, and no browser sends it by itself."""

    def write_error(self, status_code: int, **details: Any) -> None:
        """Answer a refusal, or what no handler answers."""
        error = details.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refused):
            self._send_refusal(error)
            return
        what = {404: "There is no such address.", 405: "This address does not take that method."}
        self.send(
            status_code,
            {
                "error": "invalid_request" if status_code < 500 else "internal_error",  # noqa: PLR2004 - HTTP
                "message": what.get(status_code, "The service could not answer."),
                "remedy": "Use the same version of micromegas_jupyter in the kernel and at the Hub.",
            },
        )

    def _send_refusal(self, refused: Refused) -> None:
        if refused.has_audit_line:
            address = client_address(self.request) if self.owner_name is None else None
            self.parts.audit.write(self.event, owner=self.owner_name, client_ip=address, reason=refused.error)
        if refused.retry_after_seconds is not None:
            self.set_header("Retry-After", str(refused.retry_after_seconds))
        if refused.status == 401:  # noqa: PLR2004 - HTTP
            self.set_header("WWW-Authenticate", "Bearer")
        self.send(refused.status, {"error": refused.error, "message": refused.message, "remedy": refused.remedy})

    def send_error(self, status_code: int = 500, **details: Any) -> None:
        """Answer an error with its own status, where a refusal has one."""
        error = details.get("exc_info", (None, None, None))[1]
        super().send_error(error.status if isinstance(error, Refused) else status_code, **details)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Name the kind of a defect; refusals are in the audit log."""
        del tb
        if not isinstance(value, Refused | web.HTTPError):
            _LOG.error("A call ended with %s.", "nothing" if typ is None else typ.__name__)
