"""Accepts tokens that a configured OpenID provider signed for this server.

The rules for tokens are `oidc`'s, keys come from `key_source`, and rights from `identity`; here is their order.
"""

import logging
from collections.abc import Sequence

from micromegas_jupyter.access.admins import parse_admin_rules
from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.cache import ExpiringCache
from micromegas_jupyter.access.credential import is_plausible, token_digest
from micromegas_jupyter.access.deciding import DecidingValidator
from micromegas_jupyter.access.decision import Accepted, Claimed, Decision, Refused, Undecided
from micromegas_jupyter.access.identity import context_from_claims
from micromegas_jupyter.access.key_source import KeyPolicy, KeySource, ProviderDocuments
from micromegas_jupyter.contracts import AuthContext
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.oidc.claims import check_bearer_use, check_claims
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem, check_token_text, parse_token
from micromegas_jupyter.oidc.signature import DEFAULT_ALGORITHMS, UnknownKey, check_algorithm, verify_signature
from micromegas_jupyter.seams import Clock
from micromegas_jupyter.settings import OidcServerSettings

DEFAULT_STALE_LIMIT_SECONDS = 24 * 3600.0

_REFUSAL_TTL_SECONDS = 10.0
_MAX_REFUSALS = 1000
# Refusals that end by themselves, the first when the provider's keys arrive and the others when time passes.
_PASSING_REASONS = frozenset({"unknown_key", "not_yet_valid", "issued_in_the_future"})


class OidcValidator(DecidingValidator):
    """Validates signed tokens of the configured issuers; safe to share between threads.

    Args:
        settings: Issuers with their audiences, and the sizes and times of the caches.
        admins: Entries of `MICROMEGAS_ADMINS`.
        http: The way to the providers; the caller closes it.
        clock: Tells the time.
        stale_limit_seconds: How old a key set may grow while its provider does not answer.

    Raises:
        ConfigurationError: An administrator's entry does not fit the issuers.
    """

    def __init__(
        self,
        settings: OidcServerSettings,
        admins: Sequence[str] = (),
        *,
        http: ProviderDocuments,
        clock: Clock,
        stale_limit_seconds: float = DEFAULT_STALE_LIMIT_SECONDS,
    ) -> None:
        policy = KeyPolicy(
            refresh_interval_seconds=settings.jwks_refresh_interval_seconds,
            stale_limit_seconds=max(stale_limit_seconds, settings.jwks_refresh_interval_seconds),
        )
        self._clock = clock
        self._audiences = {setting.issuer: frozenset(setting.audiences) for setting in settings.issuers}
        self._admins = parse_admin_rules(admins, issuers=tuple(self._audiences))
        self._sources = {issuer: KeySource(issuer, http=http, clock=clock, policy=policy) for issuer in self._audiences}
        self._accepted: ExpiringCache[Accepted] = ExpiringCache(
            clock=clock, max_entries=settings.token_cache_size, ttl_seconds=settings.token_cache_ttl_seconds
        )
        self._refused: ExpiringCache[Refused] = ExpiringCache(
            clock=clock, max_entries=_MAX_REFUSALS, ttl_seconds=_REFUSAL_TTL_SECONDS
        )

    def cached_context(self, token: str) -> AuthContext | None:
        """Return the context of a token that was accepted a short time ago, else None; never raises."""
        if not is_plausible(token):
            return None
        accepted = self._accepted.get(token_digest(token))
        return None if accepted is None else accepted.context

    def decide(self, token: str) -> Decision:
        """Judge the token in the order: size, cache, shape, algorithm, issuer, audience and times, key, signature."""
        digest = token_digest(token)
        known = self._accepted.get(digest) or self._refused.get(digest)
        if known is not None:
            return known
        decision = self._judge(token)
        if isinstance(decision, Accepted):
            self._accepted.put(digest, decision, ends_at=decision.context.expires_at)
        elif isinstance(decision, Refused) and decision.reason not in _PASSING_REASONS:
            self._refused.put(digest, decision)
        return decision

    def _judge(self, token: str) -> Decision:
        try:
            check_token_text(token)
            parsed = parse_token(token)
        except TokenProblem as problem:
            return Refused(reason=problem.reason)
        claimed = _claimed_by(parsed)
        try:
            return Accepted(context=self._verified_context(parsed), claimed=claimed)
        except TokenProblem as problem:
            return Refused(reason=problem.reason, claimed=claimed)
        except Unavailable:
            return Undecided(reason="keys_unavailable", claimed=claimed)
        except Exception as error:  # noqa: BLE001 - fail closed, and say whose token it was
            record_event(logging.ERROR, "A validator failed.", kind=type(error).__name__)
            return Refused(reason="internal_error", claimed=claimed)

    def _verified_context(self, parsed: ParsedToken) -> AuthContext:
        check_algorithm(parsed, DEFAULT_ALGORITHMS)
        issuer = self._known_issuer(parsed)
        check_claims(parsed.claims, issuer=issuer, audiences=self._audiences[issuer], now=self._clock.now())
        check_bearer_use(parsed.claims)
        self._verify_signature(parsed, self._sources[issuer])
        return context_from_claims(parsed.claims, issuer=issuer, admins=self._admins)

    def _known_issuer(self, parsed: ParsedToken) -> str:
        issuer = parsed.claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._audiences:
            raise TokenProblem("issuer_unknown")
        return issuer

    def _verify_signature(self, parsed: ParsedToken, source: KeySource) -> None:
        keys = source.current()
        try:
            verify_signature(parsed, keys, algorithms=DEFAULT_ALGORITHMS)
        except UnknownKey:
            newer = source.newer_than(keys)
            if newer is keys:
                raise
            verify_signature(parsed, newer, algorithms=DEFAULT_ALGORITHMS)


def _claimed_by(parsed: ParsedToken) -> Claimed:
    issuer, subject = parsed.claims.get("iss"), parsed.claims.get("sub")
    return Claimed(
        issuer=issuer if isinstance(issuer, str) else None,
        subject=subject if isinstance(subject, str) else None,
        key_id=parsed.key_id,
    )
