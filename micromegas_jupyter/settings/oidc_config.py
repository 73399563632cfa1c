"""The accepted issuers together, and how long their keys and tokens are remembered.

One entry is read in `issuer_entry`; where the JSON stands is said in `access_config`.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.decoding import MAX_ENTRIES, as_count, as_list, as_object, shown
from micromegas_jupyter.settings.issuer_entry import parse_issuer
from micromegas_jupyter.settings.issuers import IssuerSetting
from micromegas_jupyter.settings.members import Members
from micromegas_jupyter.settings.server import OidcServerSettings

MAX_ISSUERS = 2000
OIDC_MEMBERS = frozenset(
    {
        "issuers",
        "jwks_refresh_interval_secs",
        "jwks_stale_limit_secs",
        "jwks_cool_down_secs",
        "token_cache_size",
        "token_cache_ttl_secs",
    }
)

_ONE_WEEK_SECONDS = 7 * 24 * 3600
_MAX_CACHED_TOKENS = 1_000_000
_MIN_COOL_DOWN_SECONDS = 10
_MAX_COOL_DOWN_SECONDS = 60


def parse_oidc_config(value: object, place: str, *, known_roles: Collection[str] | None) -> OidcServerSettings:
    """Read what `MICROMEGAS_OIDC_CONFIG` holds.

    Args:
        value: The decoded JSON.
        place: Names it in refusals.
        known_roles: The configured roles; None when they are not known here.

    Raises:
        ConfigurationError: An entry is malformed, or entries contradict each other.
    """
    members = Members(values=as_object(value, place, known=OIDC_MEMBERS), place=place)
    entries = members.require("issuers", as_list)
    if not entries:
        raise ConfigurationError(f"{members.key('issuers')} is empty.", key=place, remedy="Add an issuer.")
    issuers = _merge(entries, members.key("issuers"), known_roles)
    defaults = OidcServerSettings(issuers=())
    as_seconds = partial(as_count, maximum=_ONE_WEEK_SECONDS)
    as_cool_down = partial(as_count, minimum=_MIN_COOL_DOWN_SECONDS, maximum=_MAX_COOL_DOWN_SECONDS)
    as_size = partial(as_count, maximum=_MAX_CACHED_TOKENS)
    refresh = members.read("jwks_refresh_interval_secs", as_seconds, defaults.jwks_refresh_interval_seconds)
    # Upstream's configuration has no limit, so the default one gives way to a long interval.
    stale_limit = members.read("jwks_stale_limit_secs", as_seconds, max(defaults.jwks_stale_limit_seconds, refresh))
    if stale_limit < refresh:
        raise ConfigurationError(
            f"{members.key('jwks_stale_limit_secs')} is below jwks_refresh_interval_secs ({refresh}).",
            key=members.key("jwks_stale_limit_secs"),
            remedy="Raise the one or lower the other.",
        )
    return OidcServerSettings(
        issuers=issuers,
        jwks_refresh_interval_seconds=refresh,
        jwks_stale_limit_seconds=stale_limit,
        jwks_cool_down_seconds=members.read("jwks_cool_down_secs", as_cool_down, defaults.jwks_cool_down_seconds),
        token_cache_size=members.read("token_cache_size", as_size, defaults.token_cache_size),
        token_cache_ttl_seconds=members.read("token_cache_ttl_secs", as_seconds, defaults.token_cache_ttl_seconds),
    )


def _merge(entries: list[object], place: str, known_roles: Collection[str] | None) -> tuple[IssuerSetting, ...]:
    """Read all entries; one issuer's entries, upstream's way to give it several audiences, become one."""
    if len(entries) > MAX_ISSUERS:
        raise ConfigurationError(f"{place} has more than {MAX_ISSUERS} entries.", key=place)
    found: dict[str, tuple[IssuerSetting, str]] = {}
    for index, entry in enumerate(entries):
        entry_place = f"{place}[{index}]"
        for setting in parse_issuer(entry, entry_place, known_roles=known_roles):
            earlier, earlier_place = found.get(setting.issuer, (None, entry_place))
            merged = setting if earlier is None else _merge_audiences(earlier, setting, earlier_place, entry_place)
            found[setting.issuer] = (merged, earlier_place)
        if len(found) > MAX_ISSUERS:
            raise ConfigurationError(f"{place} names more than {MAX_ISSUERS} issuers.", key=place)
    _check_names(found)
    return tuple(setting for setting, _ in found.values())


def _merge_audiences(
    earlier: IssuerSetting, later: IssuerSetting, earlier_place: str, later_place: str
) -> IssuerSetting:
    is_same = replace(earlier, audiences=()) == replace(later, audiences=())
    if not is_same or bool(earlier.audiences) != bool(later.audiences):
        raise ConfigurationError(
            f"{later_place} is the issuer of {earlier_place} with other members.",
            key=later_place,
            remedy="Entries of one issuer may differ in their audience only.",
        )
    audiences = tuple(dict.fromkeys((*earlier.audiences, *later.audiences)))
    if len(audiences) > MAX_ENTRIES:
        raise ConfigurationError(f"{later_place} has more than {MAX_ENTRIES} audiences.", key=later_place)
    return replace(earlier, audiences=audiences)


def _check_names(found: dict[str, tuple[IssuerSetting, str]]) -> None:
    """Check that each value of `iss` means one issuer."""
    taken = set(found)
    for setting, place in found.values():
        for alias in setting.aliases:
            if alias in taken:
                raise ConfigurationError(
                    f"{place}.aliases holds {shown(alias)}, which is another issuer or alias already.",
                    key=f"{place}.aliases",
                    remedy="Each name may mean one issuer only.",
                )
            taken.add(alias)
