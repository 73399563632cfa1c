"""From verified claims to who the caller is and what follows from that.

Whether the claims may be believed is decided before, in `oidc_validator`.
"""

import logging
from collections.abc import Iterable, Mapping

from micromegas_jupyter.access.admins import AdminRules
from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.rights import Rights
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.oidc.claims import CLIENT_CLAIMS, GROUP_CLAIM_PATHS, expiry_of, read_groups

# For display only, in upstream's order: the first that is there. Rights never follow from one of these alone.
_EMAIL_CLAIMS = (
    "verified_primary_email",
    "email",
    "https://micromegas.io/email",
    "preferred_username",
    "upn",
    "unique_name",
)


class IdentityRules:
    """How one issuer's verified claims become a caller. Immutable, so safe to share between threads.

    Args:
        setting: The issuer.
        admins: Who administers the server.
        rights: What the configured roles allow.
    """

    def __init__(self, setting: IssuerSetting, *, admins: AdminRules, rights: Rights) -> None:
        self._issuer = setting.issuer
        self._admins = admins
        self._rights = rights
        self._group_roles = setting.group_roles
        self._group_paths = GROUP_CLAIM_PATHS if setting.group_claims is None else setting.group_claims
        self._group_claims = frozenset(path[0] for path in self._group_paths)

    def context_of(self, claims: Mapping[str, object], *, subject: str) -> AuthContext:
        """Build the caller's context from claims that the issuer's policy accepted and whose signature was verified.

        Args:
            claims: The token's claims.
            subject: The caller's name, from the issuer's subject claim.

        Raises:
            TokenProblem: `exp` is no time; the policy refuses such claims.
        """
        email = claims.get("email")
        verified_email = email if isinstance(email, str) and claims.get("email_verified") is True else None
        shown_email = _first_text(claims, _EMAIL_CLAIMS)
        groups = self._groups(claims, subject)
        is_admin = self._admins.is_admin(
            issuer=self._issuer, subject=subject, verified_email=verified_email, groups=groups
        )
        roles = self._rights.all_roles(self._roles_of(groups))
        return AuthContext(
            subject=subject,
            issuer=self._issuer,
            auth_type=AuthType.OIDC,
            email=shown_email,
            expires_at=expiry_of(claims),
            is_admin=is_admin,
            name=_text(claims, "name"),
            email_verified=verified_email is not None and shown_email == verified_email,
            groups=groups,
            client_id=_first_text(claims, CLIENT_CLAIMS),
            roles=roles,
            table_access=self._rights.table_access(roles, is_admin=is_admin),
        )

    def _groups(self, claims: Mapping[str, object], subject: str) -> tuple[str, ...]:
        if self._are_groups_elsewhere(claims):
            # Entra ID leaves the groups out when there are too many. What is not known gives no rights.
            record_event(
                logging.WARNING,
                "A token leaves out its bearer's groups, so no rights follow from groups.",
                issuer=self._issuer,
                subject=subject,
            )
            return ()
        return read_groups(claims, self._group_paths)

    def _are_groups_elsewhere(self, claims: Mapping[str, object]) -> bool:
        if "groups" in self._group_claims and claims.get("hasgroups", False) is not False:
            return True
        left_out = claims.get("_claim_names")
        return isinstance(left_out, dict) and not self._group_claims.isdisjoint(left_out)

    def _roles_of(self, groups: Iterable[str]) -> list[str]:
        if not self._group_roles:
            return []
        return [role for group in groups for role in self._group_roles.get(group, ())]


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    # Entra ID gives `verified_primary_email` as a list of addresses.
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def _first_text(claims: Mapping[str, object], names: Iterable[str]) -> str | None:
    for name in names:
        if name in claims and (text := _text(claims, name)) is not None:
            return text
    return None
