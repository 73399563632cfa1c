"""Accepts tokens that a configured OpenID provider signed for this server."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Generic, TypeVar

from micromegas_jupyter.access.audit import Claimed, record_event
from micromegas_jupyter.access.jwks import KeyPolicy, KeysOnTheWay, KeySource, KeySources, ProviderDocuments
from micromegas_jupyter.access.metrics import AccessMetrics, Tally
from micromegas_jupyter.access.roles import AdminRules, Rights, parse_admin_rules
from micromegas_jupyter.access.validator import (
    Accepted,
    DecidingValidator,
    Decision,
    Refused,
    Undecided,
    plausible_digest,
    token_digest,
)
from micromegas_jupyter.config.access import IssuerSetting, OidcServerSettings, TokenKind
from micromegas_jupyter.core.protocols import AuthContext, AuthType
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

Value = TypeVar("Value")

_NEVER = datetime.max.replace(tzinfo=UTC)
# How many entries that were used lately are passed over for one that was not, before the oldest goes anyway.
_MAX_SECOND_CHANCES = 16


class _Entry(Generic[Value]):
    __slots__ = ("ends_at", "ends_at_monotonic", "value", "was_used")

    def __init__(self, value: Value, ends_at_monotonic: float, ends_at: datetime) -> None:
        self.value = value
        self.ends_at_monotonic = ends_at_monotonic
        self.ends_at = ends_at
        self.was_used = False


class ExpiringCache(Generic[Value]):
    """Maps digests to values; with room for none it remembers nothing.

    A look-up takes no lock: it reads one entry and marks it as used. Everything that changes which entries there are
    happens behind one lock. Which entry makes room is decided by the second-chance rule, which is close to the least
    recently used and costs a look-up nothing.

    An entry ends by the monotonic clock after the time to live, and by the wall clock at its own end; so neither a
    clock that is set back nor one that is set forward lets it live too long.
    """

    def __init__(self, *, clock: Clock, max_entries: int, ttl_seconds: float) -> None:
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._max_entries = max_entries
        self._ttl_seconds = ttl_seconds
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, _Entry[Value]] = OrderedDict()
        self._find = self._entries.get

    def get(self, key: bytes) -> Value | None:
        """Return the value while it lasts, and note that it was used; else None."""
        entry = self._find(key)
        if entry is None:
            return None
        if self._now() < entry.ends_at and self._monotonic() < entry.ends_at_monotonic:
            entry.was_used = True
            return entry.value
        with self._lock:
            if self._find(key) is entry:
                del self._entries[key]
        return None

    def put(self, key: bytes, value: Value, *, ends_at: datetime | None = None) -> None:
        """Remember `value` for the cache's time to live, or until `ends_at` when that is earlier."""
        if self._max_entries < 1:
            return
        entry = _Entry(value, self._monotonic() + self._ttl_seconds, _NEVER if ends_at is None else ends_at)
        with self._lock:
            self._entries.pop(key, None)
            self._make_room()
            self._entries[key] = entry

    def clear(self) -> None:
        """Forget everything at once."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def _make_room(self) -> None:
        """Leave room for one more entry; called with the lock held."""
        chances = _MAX_SECOND_CHANCES
        while len(self._entries) >= self._max_entries:
            key, oldest = self._entries.popitem(last=False)
            if oldest.was_used and chances:
                chances -= 1
                oldest.was_used = False
                self._entries[key] = oldest


_ANY_NAME = "*"


class IssuerPolicy:
    """The rules of one issuer. Immutable, so safe to share between threads.

    Args:
        setting: The issuer.

    Attributes:
        issuer: The configured issuer, whichever alias a token states.
        names: The values of `iss` that mean this issuer.
        algorithms: Its signature algorithms.
        subject_claim: The claim that names its callers.

    Raises:
        ConfigurationError: Nothing would bind the issuer's tokens to this server.
    """

    def __init__(self, setting: IssuerSetting) -> None:
        if not setting.audiences and not (setting.client_ids and "token_use" in setting.required_claims):
            raise ConfigurationError(
                f"The issuer {setting.issuer!r} has no audience, so its tokens could be meant for any server.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Name its audience, or its client ids and the token_use that its tokens must state.",
            )
        self.issuer = setting.issuer
        self.names = tuple(dict.fromkeys((setting.issuer, *setting.aliases)))
        self.algorithms = setting.algorithms
        self.subject_claim = setting.subject_claim
        self._audiences = frozenset(setting.audiences)
        self._leeway_seconds = setting.leeway_seconds
        self._kind = setting.token_kind
        self._is_rfc9068 = setting.is_rfc9068
        self._is_issue_time_required = setting.is_rfc9068 or setting.token_kind is not TokenKind.EITHER
        self._required = tuple((name, typed_values(values)) for name, values in setting.required_claims.items())
        self._tenant = setting.tenant
        self._client_ids = frozenset(setting.client_ids)
        self._subjects = frozenset(name for name in setting.subjects if not name.endswith(_ANY_NAME))
        self._subject_prefixes = tuple(
            name.removesuffix(_ANY_NAME) for name in setting.subjects if name.endswith(_ANY_NAME)
        )
        self._has_subjects = bool(setting.subjects)

    def check_unverified(self, parsed: ParsedToken, now_seconds: float) -> str:
        """Check what can be checked before the signature, and return the subject that the token claims.

        The order: algorithm, audience, times, kind, required claims, application, the subject's form.

        Raises:
            TokenProblem: A rule is broken.
        """
        claims = parsed.claims
        check_algorithm(parsed, self.algorithms)
        if self._audiences:
            check_audience(claims, self._audiences)
        else:
            check_no_audience(claims)
        check_times(
            claims,
            now_seconds,
            leeway_seconds=self._leeway_seconds,
            is_issue_time_required=self._is_issue_time_required,
        )
        check_bearer_use(claims)
        check_kind(parsed, self._kind)
        if self._is_rfc9068:
            check_rfc9068(parsed)
        if self._tenant is not None and claims.get("tid") != self._tenant:
            raise TokenProblem("tenant_mismatch")
        check_required_claims(claims, self._required)
        if self._client_ids:
            check_client(claims, self._client_ids)
        return read_subject(claims, self.subject_claim)

    def check_subject(self, subject: str) -> None:
        """Check that the subject of a verified token may come here.

        Raises:
            TokenProblem: The issuer's subjects are listed, and this is none of them.
        """
        if self._has_subjects and subject not in self._subjects and not subject.startswith(self._subject_prefixes):
            raise TokenProblem("subject_not_allowed")


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


_REFUSAL_TTL_SECONDS = 10.0
_MAX_REFUSALS = 1000
# Refusals that may end by themselves: when the provider's keys arrive, when time passes, when a defect does not recur.
_PASSING_REASONS = frozenset({"unknown_key", "not_yet_valid", "issued_in_the_future", "internal_error"})


class _Issuer:
    """One issuer's rules and keys."""

    __slots__ = ("identities", "policy", "source")

    def __init__(self, policy: IssuerPolicy, identities: IdentityRules, source: KeySource) -> None:
        self.policy = policy
        self.identities = identities
        self.source = source


class OidcValidator(DecidingValidator):
    """Validates signed tokens of the configured issuers; safe to share between threads.

    Args:
        settings: Issuers with their rules, and the sizes and times of the caches.
        admins: Entries of `MICROMEGAS_ADMINS`.
        http: The way to the providers; the caller closes it.
        clock: Tells the time.
        rights: What the configured roles allow; None for everything.
        denied: Issuer and subject of callers who are refused although their tokens are good.
        metrics: Counts look-ups.
        sources: Where keys are shared with other validators; None for keys of its own.

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
        rights: Rights | None = None,
        denied: AbstractSet[tuple[str, str]] = frozenset(),
        metrics: AccessMetrics | None = None,
        sources: KeySources | None = None,
    ) -> None:
        self._clock = clock
        self._sources = sources or KeySources(http=http, clock=clock, metrics=metrics)
        self._owns_sources = sources is None
        self._issuers = _issuers_by_name(settings, admins=admins, rights=rights or Rights(), sources=self._sources)
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
        """Release the way to keys that are not shared; safe to call twice."""
        if self._owns_sources:
            self._sources.close()

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context of a token that was accepted a short time ago, else None; never raises."""
        digest = plausible_digest(token)
        return None if digest is None else self.cached_by_digest(digest)

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return what `cached_context` returns for the token with this SHA-256 digest; never raises."""
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
        if isinstance(decision, Undecided) and decision.awaited_fetch is not None:
            return decision
        self._count_miss()
        if isinstance(decision, Accepted):
            self._accepted.put(digest, decision, ends_at=decision.context.expires_at)
        elif isinstance(decision, Refused) and decision.reason not in _PASSING_REASONS:
            self._refused.put(digest, decision)
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
        except KeysOnTheWay as waiting:
            return Undecided(reason="keys_unavailable", claimed=claimed, awaited_fetch=waiting.fetch)
        except Exception as error:  # noqa: BLE001 - fail closed, and say whose token it was
            record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
            return Refused(reason="internal_error", claimed=claimed)

    def _verified_context(self, parsed: ParsedToken, issuer: _Issuer | None) -> AuthContext:
        check_algorithm(parsed, DEFAULT_ALGORITHMS)
        if issuer is None:
            raise TokenProblem("issuer_unknown")
        policy = issuer.policy
        subject = policy.check_unverified(parsed, self._clock.now().timestamp())
        _verify_signature(parsed, issuer.source, policy.algorithms)
        policy.check_subject(subject)
        if (policy.issuer, subject) in self._denied:
            raise TokenProblem("denied")
        return issuer.identities.context_of(parsed.claims, subject=subject)

    def _configured_name(self, name: str) -> str:
        issuer = self._issuers.get(name)
        return name if issuer is None else issuer.policy.issuer


def _issuers_by_name(
    settings: OidcServerSettings, *, admins: Sequence[str], rights: Rights, sources: KeySources
) -> dict[str, _Issuer]:
    """Return each issuer under its own name and its aliases."""
    key_policy = KeyPolicy(
        refresh_interval_seconds=settings.jwks_refresh_interval_seconds,
        stale_limit_seconds=max(settings.jwks_stale_limit_seconds, settings.jwks_refresh_interval_seconds),
        cool_down_seconds=settings.jwks_cool_down_seconds,
    )
    admin_rules = parse_admin_rules(admins, issuers=settings.issuers)
    found: dict[str, _Issuer] = {}
    for setting in settings.issuers:
        policy = IssuerPolicy(setting)
        identities = IdentityRules(setting, admins=admin_rules, rights=rights)
        issuer = _Issuer(policy, identities, sources.source_of(setting, key_policy))
        for name in policy.names:
            if name in found:
                raise ConfigurationError(
                    f"Two issuers are called {name!r}, so it is not clear whose rules count for its tokens.",
                    key="MICROMEGAS_OIDC_CONFIG",
                    remedy="Name each issuer, and each of its aliases, once.",
                )
            found[name] = issuer
    return found


def _verify_signature(parsed: ParsedToken, source: KeySource, algorithms: frozenset[str]) -> None:
    keys = source.current()
    try:
        verify_signature(parsed, keys, algorithms=algorithms)
    except UnknownKey:
        newer = source.newer_than(keys)
        if newer is keys:
            raise
        verify_signature(parsed, newer, algorithms=algorithms)


def _claimed_by(parsed: ParsedToken, issuer: _Issuer | None) -> Claimed:
    stated = parsed.claims.get("iss")
    subject = parsed.claims.get("sub" if issuer is None else issuer.policy.subject_claim)
    return Claimed(
        issuer=stated if isinstance(stated, str) else None,
        subject=subject if isinstance(subject, str) else None,
        key_id=parsed.key_id,
    )
