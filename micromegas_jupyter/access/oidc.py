"""Accepts tokens that a configured OpenID provider signed for this server."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Generic, TypeVar

from cachetools import LRUCache

from micromegas_jupyter.access.audit import Claimed, record_event
from micromegas_jupyter.access.jwks import KeyCache, KeyCaches, KeyPolicy, KeysPending, ProviderDocuments
from micromegas_jupyter.access.metrics import AccessMetrics, Tally
from micromegas_jupyter.access.roles import ADMINS_KEY, AdminRules, Roles, parse_admin_rules
from micromegas_jupyter.access.validator import Accepted, CachingValidator, Decision, Refused, Undecided, token_digest
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenKind
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.oidc.claims import (
    CLIENT_CLAIMS,
    GROUP_CLAIM_PATHS,
    check_audience,
    check_bearer_use,
    check_client,
    check_kind,
    check_no_audience,
    check_required_claims,
    check_rfc9068,
    check_times,
    expiry_of,
    read_groups,
    read_subject,
    typed_values,
)
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem, parse_token
from micromegas_jupyter.oidc.keys import DEFAULT_ALGORITHMS, UnknownKey, check_algorithm, verify_signature

_REFUSAL_TTL_SECONDS = 10.0
_MAX_REFUSALS = 1000
# Refusals that may end by themselves: when the provider's keys arrive, when time passes, when a defect does not recur.
_PASSING_REASONS = frozenset({"unknown_key", "not_yet_valid", "issued_in_the_future", "internal_error"})
_ANY_NAME = "*"
_NEVER = datetime.max.replace(tzinfo=UTC)
# For display only, in upstream's order: the first that is there. Rights never follow from one of these alone.
_EMAIL_CLAIMS = (
    "verified_primary_email",
    "email",
    "https://micromegas.io/email",
    "preferred_username",
    "upn",
    "unique_name",
)

Value = TypeVar("Value")


class ExpiringCache(Generic[Value]):
    """Maps digests to values, the most recently used ones; with room for none it remembers nothing.

    An entry ends by the monotonic clock after the time to live, and by the wall clock at its own end; so neither a
    clock that is set back nor one that is set forward lets it live too long.
    """

    def __init__(self, *, clock: Clock, max_entries: int, ttl_seconds: float) -> None:
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._max_entries = max_entries
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._entries: LRUCache[bytes, tuple[Value, float, datetime]] = LRUCache(max_entries)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def get(self, key: bytes) -> Value | None:
        """Return the value while it lasts, else None."""
        try:
            with self._lock:
                entry = self._entries[key]
        except KeyError:
            return None
        value, ends_at_monotonic, ends_at = entry
        if self._monotonic() < ends_at_monotonic and self._now() < ends_at:
            return value
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]
        return None

    def put(self, key: bytes, value: Value, *, ends_at: datetime | None = None) -> None:
        """Remember `value` for the cache's time to live, or until `ends_at` when that is earlier."""
        if self._max_entries > 0:
            entry = (value, self._monotonic() + self._ttl_seconds, ends_at or _NEVER)
            with self._lock:
                self._entries[key] = entry


class Issuer:
    """One issuer: the rules for its tokens, its keys, and how its claims become a caller.

    Args:
        setting: The issuer.
        keys: Its keys.
        admins: Who administers the server.
        roles: What the configured roles allow.

    Raises:
        ConfigurationError: Nothing would bind the issuer's tokens to this server.
    """

    def __init__(self, setting: IssuerSetting, *, keys: KeyCache, admins: AdminRules, roles: Roles) -> None:
        if not setting.audiences and not (setting.client_ids and "token_use" in setting.required_claims):
            raise ConfigurationError(
                f"The issuer {setting.issuer!r} has no audience, so its tokens could be meant for any server.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Name its audience, or its client ids and the token_use that its tokens must state.",
            )
        self.name = setting.issuer
        self.names = tuple(dict.fromkeys((setting.issuer, *setting.aliases)))
        self.subject_claim = setting.subject_claim
        self._setting = setting
        self._keys = keys
        self._admins = admins
        self._roles = roles
        self._audiences = frozenset(setting.audiences)
        self._is_issue_time_required = setting.is_rfc9068 or setting.token_kind is not TokenKind.EITHER
        self._required = tuple((name, typed_values(values)) for name, values in setting.required_claims.items())
        self._client_ids = frozenset(setting.client_ids)
        self._subjects = frozenset(name for name in setting.subjects if not name.endswith(_ANY_NAME))
        prefixes = (name for name in setting.subjects if name.endswith(_ANY_NAME))
        self._subject_prefixes = tuple(name.removesuffix(_ANY_NAME) for name in prefixes)
        self._group_paths = GROUP_CLAIM_PATHS if setting.group_claims is None else setting.group_claims
        self._group_claims = frozenset(path[0] for path in self._group_paths)

    def check_unverified(self, parsed: ParsedToken, now_seconds: float) -> str:
        """Check what can be checked before the signature, and return the subject that the token claims.

        The order: algorithm, audience, times, kind, required claims, application, the subject's form.

        Raises:
            TokenProblem: A rule is broken.
        """
        setting, claims = self._setting, parsed.claims
        check_algorithm(parsed, setting.algorithms)
        if self._audiences:
            check_audience(claims, self._audiences)
        else:
            check_no_audience(claims)
        check_times(
            claims,
            now_seconds,
            leeway_seconds=setting.leeway_seconds,
            is_issue_time_required=self._is_issue_time_required,
        )
        check_bearer_use(claims)
        check_kind(parsed, setting.token_kind)
        if setting.is_rfc9068:
            check_rfc9068(parsed)
        if setting.tenant is not None and claims.get("tid") != setting.tenant:
            raise TokenProblem("tenant_mismatch")
        check_required_claims(claims, self._required)
        if self._client_ids:
            check_client(claims, self._client_ids)
        return read_subject(claims, self.subject_claim)

    def verify_signature(self, parsed: ParsedToken) -> None:
        """Check the signature, with newer keys when the ones at hand do not hold the token's.

        Raises:
            TokenProblem: The signature is wrong, or no key of the issuer has the token's name.
            Unavailable: The keys cannot be had now.
            KeysPending: They are being fetched.
        """
        keys = self._keys.get()
        try:
            verify_signature(parsed, keys, algorithms=self._setting.algorithms)
        except UnknownKey:
            newer = self._keys.get_newer(keys)
            if newer is keys:
                raise
            verify_signature(parsed, newer, algorithms=self._setting.algorithms)

    def check_subject(self, subject: str) -> None:
        """Check that the subject of a verified token may come here.

        Raises:
            TokenProblem: The issuer's subjects are listed, and this is not one of them.
        """
        if not self._setting.subjects or subject in self._subjects:
            return
        if not subject.startswith(self._subject_prefixes):
            raise TokenProblem("subject_not_allowed")

    def context_of(self, claims: Mapping[str, object], *, subject: str) -> AuthContext:
        """Build the caller's context from claims that were checked and whose signature was verified.

        Args:
            claims: The token's claims.
            subject: The caller's name, from the issuer's subject claim.
        """
        email = claims.get("email")
        verified_email = email if isinstance(email, str) and claims.get("email_verified") is True else None
        shown_email = _first_text(claims, _EMAIL_CLAIMS)
        groups = self._groups(claims, subject)
        is_admin = self._admins.is_admin(
            issuer=self.name, subject=subject, verified_email=verified_email, groups=groups
        )
        group_roles = self._setting.group_roles
        roles = self._roles.all_roles(role for group in groups for role in group_roles.get(group, ()))
        return AuthContext(
            subject=subject,
            issuer=self.name,
            auth_type=AuthType.OIDC,
            email=shown_email,
            expires_at=expiry_of(claims),
            is_admin=is_admin,
            name=_text(claims, "name"),
            email_verified=verified_email is not None and shown_email == verified_email,
            groups=groups,
            client_id=_first_text(claims, CLIENT_CLAIMS),
            roles=roles,
            table_access=self._roles.table_access(roles, is_admin=is_admin),
        )

    def _groups(self, claims: Mapping[str, object], subject: str) -> tuple[str, ...]:
        left_out = claims.get("_claim_names")
        are_left_out = "groups" in self._group_claims and claims.get("hasgroups", False) is not False
        if are_left_out or (isinstance(left_out, dict) and not self._group_claims.isdisjoint(left_out)):
            # Entra ID leaves the groups out when there are too many. What is not known gives no rights.
            record_event(
                logging.WARNING,
                "A token leaves out its bearer's groups, so no rights follow from groups.",
                issuer=self.name,
                subject=subject,
            )
            return ()
        return read_groups(claims, self._group_paths)


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


class OidcValidator(CachingValidator):
    """Validates signed tokens of the configured issuers; safe to share between threads.

    Args:
        settings: Issuers with their rules, and the sizes and times of the caches.
        admins: Entries of `MICROMEGAS_ADMINS`.
        http: Fetches the providers' documents; the caller closes it.
        clock: Tells the time.
        roles: What the configured roles allow; None for everything.
        denied: Issuer and subject of callers who are refused although their tokens are good.
        metrics: Counts look-ups.
        caches: Keys that are shared with other validators; None for keys of its own.
        admins_key: What errors call the administrators' entries.

    Raises:
        ConfigurationError: The issuers contradict each other, or an administrator's entry does not fit them.
    """

    def __init__(  # noqa: PLR0913 - the parts that a validator is joined from
        self,
        settings: OidcServerSettings,
        admins: Sequence[str] = (),
        *,
        http: ProviderDocuments,
        clock: Clock,
        roles: Roles | None = None,
        denied: AbstractSet[tuple[str, str]] = frozenset(),
        metrics: AccessMetrics | None = None,
        caches: KeyCaches | None = None,
        admins_key: str = ADMINS_KEY,
    ) -> None:
        self._clock = clock
        self._own_caches = None
        if caches is None:
            caches = self._own_caches = KeyCaches(http=http, clock=clock, metrics=metrics)
        policy = key_policy(settings)
        admin_rules = parse_admin_rules(admins, issuers=settings.issuers, key=admins_key)
        self._issuers: dict[str, Issuer] = {}
        for setting in settings.issuers:
            keys = caches.cache_of(setting, policy)
            self._add(Issuer(setting, keys=keys, admins=admin_rules, roles=roles or Roles()))
        if self._own_caches is not None:
            self._own_caches.retain(settings.issuers, policy)
        self._denied = frozenset((self._configured_name(issuer), subject) for issuer, subject in denied)
        self._accepted: ExpiringCache[Accepted] = ExpiringCache(
            clock=clock, max_entries=settings.token_cache_size, ttl_seconds=settings.token_cache_ttl_seconds
        )
        self._refused: ExpiringCache[Refused] = ExpiringCache(
            clock=clock, max_entries=_MAX_REFUSALS, ttl_seconds=_REFUSAL_TTL_SECONDS
        )
        self._count_hit = (Tally() if metrics is None else metrics.cache_hits).add
        self._count_miss = (Tally() if metrics is None else metrics.cache_misses).add

    def close(self) -> None:
        """Release what fetches keys that are not shared; safe to call twice."""
        if self._own_caches is not None:
            self._own_caches.close()

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return the context of the token with this digest if it was accepted a short time ago, else None."""
        accepted = self._accepted.get(digest)
        if accepted is None:
            return None
        self._count_hit()
        return accepted.context

    def decide(self, token: str) -> Decision:
        """Judge the token.

        The order: size, cache, shape, algorithm, issuer, the issuer's rules for claims, key, signature, and who may
        come here at all.
        """
        digest = token_digest(token)
        known = self._accepted.get(digest) or self._refused.get(digest)
        if known is not None:
            self._count_hit()
            return known
        decision = self._judge(token)
        if isinstance(decision, Accepted):
            self._accepted.put(digest, decision, ends_at=decision.context.expires_at)
        elif isinstance(decision, Refused) and decision.reason not in _PASSING_REASONS:
            self._refused.put(digest, decision)
        elif isinstance(decision, Undecided) and decision.pending is not None:
            return decision
        self._count_miss()
        return decision

    def _judge(self, token: str) -> Decision:
        try:
            parsed = parse_token(token)
        except TokenProblem as problem:
            return Refused(reason=problem.reason)
        stated = parsed.claims.get("iss")
        issuer = self._issuers.get(stated) if isinstance(stated, str) else None
        claimed = _claimed_by(parsed, issuer)
        try:
            return Accepted(context=self._verified_context(parsed, issuer), claimed=claimed)
        except TokenProblem as problem:
            return Refused(reason=problem.reason, claimed=claimed)
        except Unavailable:
            return Undecided(reason="keys_unavailable", claimed=claimed)
        except KeysPending as keys:
            return Undecided(reason="keys_unavailable", claimed=claimed, pending=keys.fetch)
        except Exception as error:  # noqa: BLE001 - fail closed, and say whose token it was
            record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
            return Refused(reason="internal_error", claimed=claimed)

    def _verified_context(self, parsed: ParsedToken, issuer: Issuer | None) -> AuthContext:
        check_algorithm(parsed, DEFAULT_ALGORITHMS)
        if issuer is None:
            raise TokenProblem("issuer_unknown")
        subject = issuer.check_unverified(parsed, self._clock.now().timestamp())
        issuer.verify_signature(parsed)
        issuer.check_subject(subject)
        if (issuer.name, subject) in self._denied:
            raise TokenProblem("denied")
        return issuer.context_of(parsed.claims, subject=subject)

    def _add(self, issuer: Issuer) -> None:
        for name in issuer.names:
            if name in self._issuers:
                raise ConfigurationError(
                    f"Two issuers are called {name!r}, so it is not clear whose rules count for its tokens.",
                    key="MICROMEGAS_OIDC_CONFIG",
                    remedy="Name each issuer, and each of its aliases, once.",
                )
            self._issuers[name] = issuer

    def _configured_name(self, name: str) -> str:
        issuer = self._issuers.get(name)
        return name if issuer is None else issuer.name


def key_policy(settings: OidcServerSettings) -> KeyPolicy:
    """Return how long the issuers' keys are believed."""
    return KeyPolicy(
        refresh_interval_seconds=settings.jwks_refresh_interval_seconds,
        stale_limit_seconds=max(settings.jwks_stale_limit_seconds, settings.jwks_refresh_interval_seconds),
        cool_down_seconds=settings.jwks_cool_down_seconds,
    )


def _claimed_by(parsed: ParsedToken, issuer: Issuer | None) -> Claimed:
    stated = parsed.claims.get("iss")
    subject = parsed.claims.get("sub" if issuer is None else issuer.subject_claim)
    return Claimed(
        issuer=stated if isinstance(stated, str) else None,
        subject=subject if isinstance(subject, str) else None,
        key_id=parsed.key_id,
    )
