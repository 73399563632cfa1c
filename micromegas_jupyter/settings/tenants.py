"""An issuer that stands for many tenants, written with `{tenantid}`, becomes one issuer per listed tenant.

A template alone would accept every tenant of the provider, that is everybody; so the tenants are always listed.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import as_object, as_text, as_texts, shown
from micromegas_jupyter.settings.members import Members

TENANT_PLACEHOLDER = "{tenantid}"
MAX_TENANTS = 1000

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_URL_MEMBERS = ("issuer", "discovery_url", "jwks_url")
_ENTRA_HOSTS = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "login.windows.net",
        "sts.windows.net",
    }
)
# These names stand for many tenants; no token has them in its issuer.
_ENTRA_SHARED_NAMES = frozenset({"common", "organizations", "consumers"})
_TENANT_REMEDY = 'Write {tenantid} in its place and list the accepted tenants, such as "tenants": ["<tenant id>"].'


def expand_tenants(values: Mapping[str, object], place: str) -> Iterator[tuple[str | None, dict[str, object]]]:
    """Yield an entry's members once for each of its tenants, with the tenant's name in place of `{tenantid}`.

    An entry without tenants is yielded as it is, with None. `required_claims` of a tenant hold its `tid`.

    Raises:
        ConfigurationError: Tenants and template do not fit, or an issuer stands for every tenant of its provider.
    """
    issuer = Members(values=values, place=place).require("issuer", as_text)
    if "tenants" not in values:
        if TENANT_PLACEHOLDER in issuer:
            raise ConfigurationError(
                f"{place}.issuer holds {TENANT_PLACEHOLDER} and no tenants are listed, so every tenant of the provider "
                "would be accepted.",
                key=f"{place}.tenants",
                remedy='List the accepted tenants, such as "tenants": ["<tenant id>"].',
            )
        _check_fixed(values, place)
        yield None, dict(values)
        return
    if issuer.count(TENANT_PLACEHOLDER) != 1:
        raise ConfigurationError(
            f"{place}.issuer does not hold {TENANT_PLACEHOLDER} exactly once, and tenants are listed.",
            key=f"{place}.issuer",
            remedy=f"Write {TENANT_PLACEHOLDER} where the tenant stands, or leave tenants out.",
        )
    for tenant in _read_tenants(values["tenants"], f"{place}.tenants"):
        expanded = _for_tenant(values, tenant, place)
        _check_fixed(expanded, place)
        yield tenant, expanded


def _read_tenants(value: object, key: str) -> tuple[str, ...]:
    tenants = as_texts(value, key)
    if len(tenants) > MAX_TENANTS:
        raise ConfigurationError(f"{key} lists more than {MAX_TENANTS} tenants.", key=key)
    for tenant in tenants:
        if not _TENANT.fullmatch(tenant):
            raise ConfigurationError(
                f"{key} holds {shown(tenant)}, which is no tenant.",
                key=key,
                remedy="A tenant consists of letters, digits, dots, hyphens and underscores.",
            )
    return tenants


def _for_tenant(values: Mapping[str, object], tenant: str, place: str) -> dict[str, object]:
    expanded = {name: value for name, value in values.items() if name != "tenants"}
    for name in _URL_MEMBERS:
        if name in values:
            expanded[name] = as_text(values[name], f"{place}.{name}").replace(TENANT_PLACEHOLDER, tenant)
    if "aliases" in values:
        aliases = as_texts(values["aliases"], f"{place}.aliases")
        expanded["aliases"] = [alias.replace(TENANT_PLACEHOLDER, tenant) for alias in aliases]
    claims = as_object(values.get("required_claims", {}), f"{place}.required_claims")
    if "tid" in claims:
        raise ConfigurationError(
            f"{place}.required_claims.tid follows from the tenants.",
            key=f"{place}.required_claims.tid",
            remedy="Leave tid out.",
        )
    expanded["required_claims"] = {**claims, "tid": tenant}
    return expanded


def _check_fixed(values: Mapping[str, object], place: str) -> None:
    """Check that nothing is left that stands for several tenants."""
    aliases = values.get("aliases")
    named = [(name, values.get(name)) for name in _URL_MEMBERS]
    listed = [(f"aliases[{index}]", alias) for index, alias in enumerate(aliases if isinstance(aliases, list) else [])]
    for name, text in (*named, *listed):
        if isinstance(text, str) and ("{" in text or "}" in text):
            raise ConfigurationError(
                f"{place}.{name} holds a placeholder that stands for nothing here.",
                key=f"{place}.{name}",
                remedy=f"Only {TENANT_PLACEHOLDER} is filled in, and only where tenants are listed.",
            )
        if isinstance(text, str) and name.startswith(("issuer", "aliases")) and _is_shared_by_tenants(text):
            raise ConfigurationError(
                f"{place}.{name} stands for every tenant, and no token has it as its issuer.",
                key=f"{place}.{name}",
                remedy=_TENANT_REMEDY,
            )


def _is_shared_by_tenants(issuer: str) -> bool:
    try:
        parts = urlsplit(issuer)
    except ValueError:
        return False
    first_segment = parts.path.lstrip("/").partition("/")[0]
    return parts.hostname in _ENTRA_HOSTS and first_segment.lower() in _ENTRA_SHARED_NAMES
