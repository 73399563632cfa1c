"""Reads the names of groups and roles from a token's claims; what follows from them is the caller's business."""

from collections.abc import Iterable, Mapping

MAX_GROUPS = 256

# Where groups are unless somebody says otherwise; the third is Keycloak's, the last Cognito's.
GROUP_CLAIM_PATHS = (("groups",), ("roles",), ("realm_access", "roles"), ("cognito:groups",))


def read_groups(claims: Mapping[str, object], paths: Iterable[tuple[str, ...]] = GROUP_CLAIM_PATHS) -> tuple[str, ...]:
    """Return the names that the claims at `paths` list, each once and at most `MAX_GROUPS` of them.

    Args:
        claims: The token's claims.
        paths: Where to look: a claim's name, then names of members inside it. What has another shape counts as none.
    """
    found: dict[str, None] = {}
    for name, *inner_names in paths:
        listed = claims.get(name)
        for inner_name in inner_names:
            listed = listed.get(inner_name) if isinstance(listed, dict) else None
        if isinstance(listed, str):
            listed = [listed]
        if isinstance(listed, list) and all(isinstance(group, str) for group in listed):
            found.update(dict.fromkeys(listed))
    found.pop("", None)
    return tuple(found)[:MAX_GROUPS]
