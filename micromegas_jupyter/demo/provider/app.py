"""The web application: routes, security headers, limits, and a log without secrets.

It is built of parts that the provider makes; running it is the provider's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import flask
from werkzeug.exceptions import HTTPException, InternalServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.wrappers import Response

    from micromegas_jupyter.demo.provider.authorize_pages import AuthorizePages
    from micromegas_jupyter.demo.provider.browser import Browsers
    from micromegas_jupyter.demo.provider.device_pages import DevicePages
    from micromegas_jupyter.demo.provider.protocol_routes import ProtocolRoutes
    from micromegas_jupyter.demo.provider.session_pages import SessionPages

log = logging.getLogger("micromegas_jupyter.demo.provider")

_MAX_BODY_BYTES = 64 * 1024
_HEADERS = {
    # No form-action: browsers apply it to the redirects that follow a form as well, and the answer of the consent
    # form leads to the application, at any port.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def build_app(
    *,
    trusted_hosts: Sequence[str],
    public_scheme: str,
    browsers: Browsers,
    routes: Sequence[AuthorizePages | DevicePages | SessionPages | ProtocolRoutes],
) -> flask.Flask:
    """Return the application.

    Args:
        trusted_hosts: The names under which requests may come; any other is refused, so that no name on the
            internet can be pointed at this machine to read its pages.
        public_scheme: The scheme of the address at which a browser finds the pages. A proxy in front of them does
            not pass it on, and Authlib answers plain http on loopback only.
        browsers: Sessions and cookies.
        routes: What answers.
    """
    app = flask.Flask(__name__, static_folder="static", static_url_path="/static")
    app.config.update(TRUSTED_HOSTS=list(trusted_hosts), MAX_CONTENT_LENGTH=_MAX_BODY_BYTES, MAX_FORM_PARTS=100)
    for part in routes:
        part.register(app)

    def restore_scheme() -> None:
        if public_scheme == "https":
            flask.request.scheme = public_scheme

    def finish(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        log.info(
            "request answered",
            extra={
                "method": flask.request.method,
                "endpoint": flask.request.endpoint or "none",
                "status": response.status_code,
            },
        )
        return browsers.set_cookie(response)

    def refuse(error: HTTPException) -> Response:
        return flask.Response(f"{error.code} {error.name}\n", status=error.code, mimetype="text/plain")

    def fail(error: Exception) -> Response:
        # The exception's own text may hold a code or a token, so only its kind and place are logged.
        kind = type(error).__name__
        log.error("request failed", extra={"endpoint": flask.request.endpoint or "none", "error": kind})
        return refuse(InternalServerError())

    app.before_request(restore_scheme)
    app.after_request(finish)
    app.register_error_handler(HTTPException, refuse)
    app.register_error_handler(Exception, fail)
    return app
