"""Accepts tokens that a configured OpenID provider signed for this server.

The rules for tokens are `issuer_policy`'s, keys come from `key_source`, and rights from `identity`; here is their
order.
"""

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from micromegas_jupyter.access.admins import parse_admin_rules
from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.cache import ExpiringCache
from micromegas_jupyter.access.credential import plausible_digest, token_digest
from micromegas_jupyter.access.deciding import DecidingValidator
from micromegas_jupyter.access.decision import Accepted, Claimed, Decision, Refused, Undecided
from micromegas_jupyter.access.identity import IdentityRules
from micromegas_jupyter.access.issuer_policy import IssuerPolicy
from micromegas_jupyter.access.key_fetch import ProviderDocuments
from micromegas_jupyter.access.key_policy import KeyPolicy
from micromegas_jupyter.access.key_source import KeySource
from micromegas_jupyter.access.key_sources import KeySources
from micromegas_jupyter.access.key_waits import KeysOnTheWay
from micromegas_jupyter.access.metrics import AccessMetrics, Tally
from micromegas_jupyter.access.rights import Rights
from micromegas_jupyter.config.access import OidcServerSettings
from micromegas_jupyter.core.protocols import AuthContext
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem, parse_token
from micromegas_jupyter.oidc.keys import DEFAULT_ALGORITHMS, UnknownKey, check_algorithm, verify_signature

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
