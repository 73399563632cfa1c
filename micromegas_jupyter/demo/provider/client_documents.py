"""Applications with a URL as client ID: Client ID Metadata Documents (draft-ietf-oauth-client-id-metadata-document)."""

import re
from typing import Final
from urllib.parse import unquote

from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.text import (
    LOOPBACK_HOSTS,
    MAX_URL_CHARACTERS,
    cut,
    host_text,
    is_loopback_url,
    is_text,
    split_plain_url,
)
from micromegas_jupyter.demo.provider.state import AUTHORIZATION_CODE, REFRESH_TOKEN, Client
from micromegas_jupyter.errors import ProviderMisbehaved

_MAX_DOCUMENT_BYTES: Final = 5 * 1024  # section 6.6
_FETCH_SECONDS: Final = 5.0
_MAX_REDIRECT_URIS: Final = 20
_MAX_NAME_CHARACTERS: Final = 60
_GRANT_TYPES: Final = (AUTHORIZATION_CODE, REFRESH_TOKEN)


def is_document_url(client_id: str) -> bool:
    """Whether a client ID is the URL of a document (section 3): https, or http to this machine."""
    parts = split_plain_url(client_id, max_characters=MAX_URL_CHARACTERS)
    return (
        parts is not None
        and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS))
        and not ("@" in parts.netloc or "#" in client_id or "?" in client_id)
        and parts.path not in {"", "/"}
        and not {".", ".."} & set(unquote(parts.path).split("/"))
    )


def open_http() -> ProviderHttp:
    """Return the HTTP client for documents, limited to five seconds and 5 KiB, without redirects."""
    return ProviderHttp(timeout_seconds=_FETCH_SECONDS, max_bytes=_MAX_DOCUMENT_BYTES)


def fetch_client(http: ProviderHttp, client_id: str) -> Client:
    """Fetch an application's document; raises `MicromegasError`.

    Private addresses are not contacted, so that a client ID can't be used to scan the network. Loopback is allowed,
    because all of the demo's users are on this machine.
    """
    answer = http.fetch_json(client_id, refuses_private=not is_loopback_url(client_id), kind="The site")
    if not answer.is_success:
        raise ProviderMisbehaved(f"The site {host_text(client_id)} returned status {answer.status}.")
    return read_client(client_id, answer.body)


def read_client(client_id: str, document: object) -> Client:
    """Return the application that a document describes (section 4); raises `ProviderMisbehaved`."""
    members = document if isinstance(document, dict) else {}
    name, redirect_uris = members.get("client_name", client_id), members.get("redirect_uris")
    patterns = [_pattern(uri) for uri in redirect_uris[:_MAX_REDIRECT_URIS]] if isinstance(redirect_uris, list) else []
    problem = None
    if members.get("client_id") != client_id:
        problem = "does not contain its own URL as client_id"
    elif not any(patterns):
        problem = "does not contain a redirect URI with https or on this machine"
    elif not is_text(name):
        problem = "does not contain a printable client_name"
    elif members.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in members:
        problem = "requires a secret or a key, but this provider accepts public clients only"
    if problem is not None:
        raise ProviderMisbehaved(f"The application's document {problem}.")
    return Client(
        client_id=client_id,
        grant_types=_GRANT_TYPES,
        redirect_uris="|".join(filter(None, patterns)),
        # Anyone can publish any name; only the host can be trusted.
        name=f"{cut(str(name), _MAX_NAME_CHARACTERS)} ({host_text(client_id)})",
    )


def _pattern(redirect_uri: object) -> str:
    """Return the pattern of a redirect URI, or an empty string if it is unusable; a loopback port varies (RFC 8252)."""
    parts = split_plain_url(redirect_uri, max_characters=MAX_URL_CHARACTERS) if isinstance(redirect_uri, str) else None
    if parts is None or "@" in parts.netloc or parts.fragment:
        return ""
    if parts.scheme == "https":
        return re.escape(parts.geturl())
    if parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
        return ""
    query = f"?{parts.query}" if parts.query else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return rf"http://{re.escape(host)}(:[1-9]\d{{0,4}})?{re.escape(parts.path + query)}"
