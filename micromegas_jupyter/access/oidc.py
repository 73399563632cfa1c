"""Accepts tokens that a configured OpenID provider signed for this server."""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from micromegas_jupyter.access.audit import AccessMetrics, Claimed, record_event
from micromegas_jupyter.access.jwks import KeyCache, KeyCaches, KeyPolicy, KeysPending, RefetchDue
from micromegas_jupyter.access.validator import (
    Accepted,
    BaseValidator,
    Decision,
    Refused,
    Roles,
    Undecided,
    token_digest,
)
from micromegas_jupyter.config.issuers import IssuerSetting, OidcServerSettings
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenKind
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.oidc.jwt import (
    CLIENT_CLAIMS,
    DEFAULT_ALGORITHMS,
    GROUP_CLAIM_PATHS,
    ParsedToken,
    TokenProblem,
    UnknownKey,
    check_algorithm,
    check_audience,
    check_bearer_use,
    check_client,
    check_kind,
    check_required_claims,
    check_rfc9068,
    check_times,
    expiry_of,
    parse_token,
    read_groups,
    read_subject,
    typed_values,
    verify_signature,
)

_REFUSAL_TTL_SECONDS = 10.0
_MAX_REFUSALS = 1000
# Rejections that may be temporary: the provider's keys arrive, time passes, or a defect does not recur.
_PASSING_REASONS = frozenset({"unknown_key", "not_yet_valid", "issued_in_the_future", "internal_error"})
_ANY_NAME = "*"
_NEVER = datetime.max.replace(tzinfo=UTC)
# For display only, in upstream's order; the first one present is used. None of these alone ever grants rights.
_EMAIL_CLAIMS = (
    "verified_primary_email", "email", "https://micromegas.io/email", "preferred_username", "upn", "unique_name",
)  # fmt: skip

ADMINS_KEY = "MICROMEGAS_ADMINS"
# The excluded characters may occur in subjects, such as `google-apps|alice@example.com` from Auth0.
_ADDRESS = re.compile(r"[^\s@|:/]+@[^\s@|:/]+")
_SUBJECT_PREFIX = "subject:"
_MAX_SHOWN_ISSUERS = 3

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRules:
    """Administrators: subjects, verified addresses, and groups, each with its issuer."""

    subjects: frozenset[tuple[str, str]] = frozenset()
    emails: frozenset[tuple[str, str]] = frozenset()
    groups: frozenset[tuple[str, str]] = frozenset()

    def is_admin(
        self, *, issuer: str, subject: str, verified_email: str | None = None, groups: Collection[str] = ()
    ) -> bool:
        """Whether a rule matches this caller, given the issuer that verified the signature.

        `verified_email` is the token's `email` if `email_verified` is JSON `true`; `groups` must be complete.
        """
        return (
            (issuer, subject) in self.subjects
            or (verified_email is not None and (issuer, verified_email) in self.emails)
            or (bool(self.groups) and any((issuer, group) in self.groups for group in groups))
        )


def parse_admin_rules(entries: Sequence[str], *, issuers: Sequence[IssuerSetting], key: str = ADMINS_KEY) -> AdminRules:
    """Parse entries of the form `issuer|subject`, `issuer|address`, subject, or address.

    A bare subject requires that exactly one issuer is configured. A bare address belongs to each issuer that is trusted
    for email. With several issuers, only those with the setting are trusted, because any issuer could claim any address
    (the nOAuth takeover). An address with its issuer counts unless that issuer is set as not trusted for email.

    An entry that looks like an address is never used as a subject, because some providers let users choose their
    subject. Write `issuer|subject:<subject>` for a subject that looks like an address.
    """
    subjects: set[tuple[str, str]] = set()
    emails: set[tuple[str, str]] = set()
    for entry in entries:
        bound = _split_issuer(entry, issuers, key)
        if bound is None and "@" in entry:
            is_alone = len(issuers) == 1
            trusted = {
                (one.issuer, entry)
                for one in issuers
                if (is_alone if one.is_trusted_for_email is None else one.is_trusted_for_email)
            }
            emails |= trusted
            if not trusted:
                _warn_of_address(entry, "no issuer is trusted for email", issuers)
            continue
        setting, name = bound or (_only_issuer(entry, issuers, key), entry)
        if bound is None or not _ADDRESS.fullmatch(name):
            subject = name.removeprefix(_SUBJECT_PREFIX)
            # The prefix has a meaning only before text that would otherwise be an address.
            subjects.add((setting.issuer, subject if bound and _ADDRESS.fullmatch(subject) else name))
        elif setting.is_trusted_for_email is not False:
            emails.add((setting.issuer, name))
        else:
            _warn_of_address(entry, "its issuer is set as not trusted for email", [setting])
    groups = frozenset((setting.issuer, group) for setting in issuers for group in setting.admin_groups)
    return AdminRules(subjects=frozenset(subjects), emails=frozenset(emails), groups=groups)


def _split_issuer(entry: str, issuers: Sequence[IssuerSetting], key: str) -> tuple[IssuerSetting, str] | None:
    """Return the issuer at the beginning of the entry, and the rest; None if no issuer matches."""
    for setting in issuers:
        for issuer in (setting.issuer, *setting.aliases):
            if not entry.startswith(f"{issuer}|"):
                continue
            if name := entry.removeprefix(f"{issuer}|"):
                return setting, name
            raise ConfigurationError(
                f"{key} has an entry without a subject: {entry!r}.", key=key, remedy="Add the subject after the bar."
            )
    # Subjects may contain `|` (Auth0's do), so only a URL before it is an issuer.
    prefix, separator, _ = entry.partition("|")
    if separator and "://" in prefix:
        raise ConfigurationError(
            f"{key} contains an issuer that is not configured: {entry!r}.",
            key=key,
            remedy="Use the issuer exactly as it is configured.",
        )
    return None


def _warn_of_address(entry: str, reason: str, issuers: Sequence[IssuerSetting]) -> None:
    usable = [setting for setting in issuers if setting.is_trusted_for_email is not False]
    remedy = "Specify the subject as issuer|subject, or a group in admin_groups."
    if usable:
        remedy = f"Use {_spelled_out(entry, usable)}, or set trusted_for_email for your email domain's issuer."
    record_event(
        logging.WARNING,
        "An administrator's address doesn't match any user.",
        subject=entry,
        reason=reason,
        remedy=remedy,
    )


def _only_issuer(entry: str, issuers: Sequence[IssuerSetting], key: str) -> IssuerSetting:
    if len(issuers) == 1:
        return issuers[0]
    raise ConfigurationError(
        f"{key} contains the subject {entry!r} without an issuer, which requires exactly one configured issuer.",
        key=key,
        remedy=f"Use {_spelled_out(entry, issuers)}." if issuers else "Use the form issuer|subject.",
    )


def _spelled_out(entry: str, issuers: Sequence[IssuerSetting]) -> str:
    """Return possible full forms of the entry for a message, one per issuer for the first few issuers."""
    return " or ".join(f"{setting.issuer}|{entry}" for setting in issuers[:_MAX_SHOWN_ISSUERS])


class ExpiringCache(Generic[Value]):
    """Maps digests to the most recently used values; stores nothing if its size is 0.

    An entry expires after its time to live by the monotonic clock, and at its expiry by the wall clock. Changes of the
    wall clock in either direction thus never extend its life.
    """

    def __init__(self, *, clock: Clock, max_entries: int, ttl_seconds: float) -> None:
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[Value, float, datetime]] = OrderedDict()

    def get(self, key: bytes) -> Value | None:
        """Return the value, or None if it has expired."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        value, ends_at_monotonic, ends_at = entry
        return value if self._monotonic() < ends_at_monotonic and self._now() < ends_at else None

    def put(self, key: bytes, value: Value, *, ends_at: datetime = _NEVER) -> None:
        """Store `value` for the cache's time to live, or until `ends_at` if that is earlier."""
        if not self._max_entries:
            return
        entry = (value, self._monotonic() + self._ttl_seconds, ends_at)
        with self._lock:
            self._entries[key] = entry
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)


class Issuer:
    """One issuer: its token rules, its keys, and how its claims are mapped to a caller."""

    def __init__(self, setting: IssuerSetting, *, keys: KeyCache, admins: AdminRules, roles: Roles) -> None:
        if not setting.audiences and not (setting.client_ids and "token_use" in setting.required_claims):
            raise ConfigurationError(
                f"The issuer {setting.issuer!r} has no audience, so its tokens could be intended for any server.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Specify its audience, or its client IDs and the token_use that its tokens must contain.",
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
        self._subject_prefixes = tuple(name[:-1] for name in setting.subjects if name.endswith(_ANY_NAME))
        self._group_paths = GROUP_CLAIM_PATHS if setting.group_claims is None else setting.group_claims
        self._group_claims = frozenset(path[0] for path in self._group_paths)
        self._misread_claims = {path[0] for path in self._group_paths if len(path) > 1}

    def check_unverified(self, parsed: ParsedToken, now_seconds: float) -> str:
        """Check algorithm, audience, times, kind, required claims, and application; return the claimed subject."""
        setting, claims = self._setting, parsed.claims
        check_algorithm(parsed, setting.algorithms)
        if self._audiences:
            check_audience(claims, self._audiences)
        elif "aud" in claims:
            # This issuer's access tokens don't have an audience, so this is a different kind of token, for a different
            # recipient.
            raise TokenProblem("audience_mismatch")
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
        """Check the signature; fetch newer keys if the token's key is not among the current ones."""
        keys = self._keys.get()
        try:
            verify_signature(parsed, keys, algorithms=self._setting.algorithms)
        except UnknownKey:
            newer = self._keys.get_newer(keys, signature=parsed.signature)
            if newer is keys:
                raise
            verify_signature(parsed, newer, algorithms=self._setting.algorithms)

    def check_subject(self, subject: str) -> None:
        """Check that the subject of a verified token is allowed, if allowed subjects are configured."""
        is_listed = subject in self._subjects or subject.startswith(self._subject_prefixes)
        if self._setting.subjects and not is_listed:
            raise TokenProblem("subject_not_allowed")

    def context_of(self, claims: Mapping[str, object], *, subject: str) -> AuthContext:
        """Build the caller's context from checked claims with a verified signature."""
        email = claims.get("email")
        verified_email = email if isinstance(email, str) and claims.get("email_verified") is True else None
        shown_email = _first_text(claims, _EMAIL_CLAIMS)
        groups = self._groups(claims, subject)
        is_admin = self._admins.is_admin(
            issuer=self.name, subject=subject, verified_email=verified_email, groups=groups
        )
        names = (role for group in groups for role in self._setting.group_roles.get(group, ()))
        roles, table_access = self._roles.grant(names, is_admin=is_admin)
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
            table_access=table_access,
            max_scan_bytes=None if is_admin else self._roles.scan_limit(roles),
            write_access=self._roles.write_access(roles),
        )

    def _groups(self, claims: Mapping[str, object], subject: str) -> tuple[str, ...]:
        left_out = claims.get("_claim_names")
        are_left_out = "groups" in self._group_claims and claims.get("hasgroups", False) is not False
        if are_left_out or (isinstance(left_out, dict) and not self._group_claims.isdisjoint(left_out)):
            # Entra ID omits the groups if there are too many. Unknown groups grant no rights.
            record_event(
                logging.WARNING,
                "A token leaves out its bearer's groups, so no rights follow from groups.",
                issuer=self.name,
                subject=subject,
            )
            return ()
        for name in self._misread_claims.intersection(claims):
            if not isinstance(claims[name], str | list):
                continue
            self._misread_claims.discard(name)  # one event per configuration
            record_event(
                logging.WARNING,
                "A path of groups_claim continues below a claim that isn't an object, so it grants no rights.",
                issuer=self.name,
                claim=name,
                remedy='["a", "b"] is b within a; [["a"], ["b"]] is a and b.',
            )
        return read_groups(claims, self._group_paths)


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    # Entra ID returns `verified_primary_email` as a list of addresses.
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value else None


def _first_text(claims: Mapping[str, object], names: Iterable[str]) -> str | None:
    for name in names:
        if name in claims and (text := _text(claims, name)) is not None:
            return text
    return None


class OidcValidator(BaseValidator):
    """Validates signed tokens from the configured issuers; thread-safe.

    Args:
        settings: Issuers with their rules, and the caches' sizes and times.
        admins: Entries of `MICROMEGAS_ADMINS`.
        http: Fetches the providers' documents; the caller closes it.
        clock: The current time.
        roles: What the configured roles allow; None allows everything.
        denied: Issuer and subject of callers that are rejected even with valid tokens.
        metrics: Counts lookups.
        caches: Keys that are shared with other validators; None creates separate caches.
        admins_key: The setting that errors name for administrators.

    Raises:
        ConfigurationError: The issuers contradict each other, or an administrator's entry does not match them.
    """

    def __init__(  # noqa: PLR0913 - the parts that a validator is joined from
        self,
        settings: OidcServerSettings,
        admins: Sequence[str] = (),
        *,
        http: ProviderHttp,
        clock: Clock,
        roles: Roles | None = None,
        denied: AbstractSet[tuple[str, str]] = frozenset(),
        metrics: AccessMetrics | None = None,
        caches: KeyCaches | None = None,
        admins_key: str = ADMINS_KEY,
    ) -> None:
        self._clock = clock
        self._metrics = metrics or AccessMetrics()
        self._own_caches = None
        if caches is None:
            caches = self._own_caches = KeyCaches(http=http, clock=clock, metrics=self._metrics)
        policy = key_policy(settings)
        admin_rules = parse_admin_rules(admins, issuers=settings.issuers, key=admins_key)
        self._issuers: dict[str, Issuer] = {}
        for setting in settings.issuers:
            keys = caches.cache_of(setting, policy)
            issuer = Issuer(setting, keys=keys, admins=admin_rules, roles=roles or Roles())
            for name in issuer.names:
                if name in self._issuers:
                    raise ConfigurationError(
                        f"Two issuers have the name {name!r}, so it is unclear which rules apply to its tokens.",
                        key="MICROMEGAS_OIDC_CONFIG",
                        remedy="List each issuer and each alias only once.",
                    )
                self._issuers[name] = issuer
        if self._own_caches is not None:
            self._own_caches.retain(settings.issuers, policy)
        self._denied = frozenset(
            (self._issuers[name].name if name in self._issuers else name, subject) for name, subject in denied
        )
        self._accepted: ExpiringCache[Accepted] = ExpiringCache(
            clock=clock, max_entries=settings.token_cache_size, ttl_seconds=settings.token_cache_ttl_seconds
        )
        self._refused: ExpiringCache[Refused] = ExpiringCache(
            clock=clock, max_entries=_MAX_REFUSALS, ttl_seconds=_REFUSAL_TTL_SECONDS
        )

    def close(self) -> None:
        """Release key caches that are not shared; safe to call twice."""
        if self._own_caches is not None:
            self._own_caches.close()

    def cached_by_digest(self, digest: bytes) -> AuthContext | None:
        """Return the context of the token with this digest if it was accepted recently, or None."""
        accepted = self._accepted.get(digest)
        if accepted is None:
            return None
        self._metrics.cache_hits += 1
        return accepted.context

    def decide(self, token: str) -> Decision:
        """Check the size, cache, format, algorithm, issuer, its claim rules, key, signature, and allowed callers."""
        digest = token_digest(token)
        if digest is None:
            return Refused(reason="token_too_large")
        known = self._accepted.get(digest) or self._refused.get(digest)
        if known is not None:
            self._metrics.cache_hits += 1
            return known
        decision = self._judge(token)
        if isinstance(decision, Accepted):
            self._accepted.put(digest, decision, ends_at=decision.context.expires_at or _NEVER)
        elif isinstance(decision, Refused) and decision.reason not in _PASSING_REASONS:
            self._refused.put(digest, decision)
        elif isinstance(decision, Undecided) and decision.pending is not None:
            return decision
        self._metrics.cache_misses += 1
        return decision

    def _judge(self, token: str) -> Decision:
        try:
            parsed = parse_token(token)
        except TokenProblem as problem:
            return Refused(reason=problem.reason)
        stated = parsed.claims.get("iss")
        issuer = self._issuers.get(stated) if isinstance(stated, str) else None
        subject = parsed.claims.get("sub" if issuer is None else issuer.subject_claim)
        claimed = Claimed(
            issuer=stated if isinstance(stated, str) else None,
            subject=subject if isinstance(subject, str) else None,
            key_id=parsed.key_id,
        )
        try:
            return Accepted(context=self._verified_context(parsed, issuer), claimed=claimed)
        except TokenProblem as problem:
            return Refused(reason=problem.reason, claimed=claimed)
        except (Unavailable, RefetchDue) as error:
            reason = "key_refetch_due" if isinstance(error, RefetchDue) else "keys_unavailable"
            return Undecided(reason=reason, claimed=claimed)
        except KeysPending as keys:
            return Undecided(reason="keys_unavailable", claimed=claimed, pending=keys.fetch)
        except Exception as error:  # noqa: BLE001 - fail closed, and say whose token it was
            record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
            return Refused(reason="internal_error", claimed=claimed)

    def _verified_context(self, parsed: ParsedToken, issuer: Issuer | None) -> AuthContext:
        if issuer is None:
            check_algorithm(parsed, DEFAULT_ALGORITHMS)
            raise TokenProblem("issuer_unknown")
        subject = issuer.check_unverified(parsed, self._clock.now().timestamp())
        issuer.verify_signature(parsed)
        issuer.check_subject(subject)
        if (issuer.name, subject) in self._denied:
            raise TokenProblem("denied")
        return issuer.context_of(parsed.claims, subject=subject)


def key_policy(settings: OidcServerSettings) -> KeyPolicy:
    """Return how long the issuers' keys are valid."""
    return KeyPolicy(
        refresh_interval_seconds=settings.jwks_refresh_interval_seconds,
        stale_limit_seconds=max(settings.jwks_stale_limit_seconds, settings.jwks_refresh_interval_seconds),
        cool_down_seconds=settings.jwks_cool_down_seconds,
    )
