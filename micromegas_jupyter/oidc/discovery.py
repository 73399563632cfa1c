"""A provider's discovery document, and text of a provider that a person is shown."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from micromegas_jupyter.config.decoding import as_issuer
from micromegas_jupyter.core.http import check_endpoint_url, is_loopback_url
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved

MAX_SHOWN_CHARACTERS = 200

_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Codes and tokens are long runs without a space; words are not.
_LONG_RUN = re.compile(r"[^\s]{32,}")


def clean_provider_text(text: str, *, secrets: Collection[Secret] = ()) -> str:
    """Return `text` without control characters, markup, long runs that could be tokens, and the given secrets.

    Source: RFC 6749 section 5.2 allows printable ASCII only; RFC 8628 section 5.3; SECURITY A23.
    """
    for written in _written(secrets):
        text = text.replace(written, "…")
    printable = "".join(c if c.isprintable() and c not in "<>&" else " " for c in text[: 10 * MAX_SHOWN_CHARACTERS])
    words = " ".join(_LONG_RUN.sub("…", printable).split())
    return words if len(words) <= MAX_SHOWN_CHARACTERS else words[:MAX_SHOWN_CHARACTERS] + "…"


def describe_provider_error(code: object, description: object, *, secrets: Collection[Secret] = ()) -> str:
    """Return an OAuth error code with its description as a short phrase. Source: RFC 6749 sections 4.1.2.1 and 5.2."""
    shown = "an unreadable error code"
    if isinstance(code, str) and _ERROR_CODE.fullmatch(code) and not any(map(code.__contains__, _written(secrets))):
        shown = code
    detail = clean_provider_text(description, secrets=secrets) if isinstance(description, str) else ""
    return f"{shown}: {detail}" if detail else shown


def _written(secrets: Collection[Secret]) -> list[str]:
    """Return the secrets as they are, and as a form or an address writes them; longer ones first."""
    texts = [secret.reveal() for secret in secrets if secret.reveal()]
    found = {written for text in texts for written in (text, quote_plus(text), quote(text, safe=""))}
    return sorted(found, key=len, reverse=True)


METADATA_PATH = "/.well-known/openid-configuration"
# How one document or key of a provider with many tenants writes an issuer: the caller's tenant goes there.
TENANT_PLACEHOLDER = "{tenantid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMetadata:
    """What a provider says about itself; every endpoint is https, or http on loopback."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    revocation_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    end_session_endpoint: str | None = None
    sends_issuer_in_callback: bool = False
    token_endpoint_auth_methods: tuple[str, ...] | None = None
    pkce_methods: tuple[str, ...] | None = None

    def require_token_endpoint(self) -> str:
        """Return the token endpoint."""
        if self.token_endpoint is None:
            raise ProviderMisbehaved(f"The identity provider {self.issuer} names no token endpoint.")
        return self.token_endpoint


def build_metadata_url(issuer: str) -> str:
    """Return the address of an issuer's discovery document. Source: OpenID Connect Discovery 1.0 section 4.1."""
    return issuer.removesuffix("/") + METADATA_PATH  # one trailing slash is dropped here and nowhere else


def parse_metadata(document: object, *, issuer: str) -> ProviderMetadata:
    """Read a discovery document. Source: OpenID Connect Discovery 1.0 sections 3 and 4.3; RFC 8414 section 2."""
    members = _members_for(document, issuer)
    return ProviderMetadata(
        issuer=issuer,
        jwks_uri=_jwks_uri(members, issuer, read_from=issuer),
        authorization_endpoint=_endpoint(members, "authorization_endpoint", issuer),
        token_endpoint=_endpoint(members, "token_endpoint", issuer),
        userinfo_endpoint=_endpoint(members, "userinfo_endpoint", issuer),
        revocation_endpoint=_endpoint(members, "revocation_endpoint", issuer),
        device_authorization_endpoint=_endpoint(members, "device_authorization_endpoint", issuer),
        end_session_endpoint=_endpoint(members, "end_session_endpoint", issuer),
        sends_issuer_in_callback=members.get("authorization_response_iss_parameter_supported") is True,
        token_endpoint_auth_methods=_texts(members, "token_endpoint_auth_methods_supported", issuer),
        pkce_methods=_texts(members, "code_challenge_methods_supported", issuer),
    )


def parse_jwks_uri(document: object, *, issuer: str, tenant: str | None = None, read_from: str | None = None) -> str:
    """Read from a discovery document where the keys are, and nothing else."""
    return _jwks_uri(_members_for(document, issuer, tenant), issuer, read_from=read_from or issuer)


def names_issuer(stated: object, *, issuer: str, tenant: str | None) -> bool:
    """Whether a document or key says that it is `issuer`'s, with the tenant put in place when there is one."""
    if not isinstance(stated, str):
        return False
    return issuer in {stated, stated if tenant is None else stated.replace(TENANT_PLACEHOLDER, tenant)}


def _members_for(document: object, issuer: str, tenant: str | None = None) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ProviderMisbehaved(f"The discovery document of {issuer} is not a JSON object.")
    stated = document.get("issuer")
    if not names_issuer(stated, issuer=issuer, tenant=tenant):
        raise _other_issuer(stated, issuer=issuer)
    return document


def _other_issuer(stated: object, *, issuer: str) -> ProviderMisbehaved:
    remedy = "Set the issuer exactly as the provider writes it, a trailing slash included."
    if not isinstance(stated, str):
        other = "no issuer"
    elif _may_be_set(stated, configured=issuer):
        other = stated
        # Whoever answers there could name any issuer, so a person has to know it.
        remedy = f"If {stated} is your provider, set the issuer to exactly that. If you do not know it, do not sign in."
    else:
        other = clean_provider_text(stated)
    return ProviderMisbehaved(
        f"The discovery document of {issuer} is made out for another issuer ({other}).", remedy=remedy
    )


def _may_be_set(stated: str, *, configured: str) -> bool:
    """Whether an issuer that a document states can be shown verbatim, and the settings would accept it."""
    if len(stated) > MAX_SHOWN_CHARACTERS or set(stated) & set("{}&'`"):
        return False
    try:
        as_issuer(stated, "issuer")
    except ConfigurationError:
        return False
    return stated.startswith("https://") or is_loopback_url(configured)


def _jwks_uri(document: Mapping[str, object], issuer: str, *, read_from: str) -> str:
    jwks_uri = _endpoint(document, "jwks_uri", issuer, read_from=read_from)
    if jwks_uri is None:
        raise ProviderMisbehaved(f"The discovery document of {issuer} does not say where its keys are.")
    return jwks_uri


def _endpoint(document: Mapping[str, object], name: str, issuer: str, *, read_from: str | None = None) -> str | None:
    url = document.get(name)
    if url is None:
        return None
    if not isinstance(url, str):
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that is not text.")
    check_endpoint_url(url)
    if url.lower().startswith("http:") and not is_loopback_url(read_from or issuer):
        # A remote provider must not make this machine's own services receive codes and tokens in its place.
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that is not https.")
    return url


def _texts(document: Mapping[str, object], name: str, issuer: str) -> tuple[str, ...] | None:
    listed = document.get(name)
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that is not a list of texts.")
    return tuple(listed)
