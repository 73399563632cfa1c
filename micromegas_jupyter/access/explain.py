"""Explains to an administrator, step by step, why a credential is accepted or rejected.

The validators decide; this module presents their decision. Validators follow the order of the steps, so all steps
before the one of the reason code were passed. No rule is repeated here, and the credential is never shown.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from micromegas_jupyter.access.validator import Accepted, Decision, Refused, Undecided
from micromegas_jupyter.config.access import API_KEY_ISSUER, READ_SCOPE, AccessSettings
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.oidc.jwt import CLIENT_CLAIMS, MAX_TOKEN_BYTES, ParsedToken, TokenProblem, parse_token

MAX_SHOWN_CHARACTERS = 200

_YEAR_10000_SECONDS = 253_402_300_800
_MAX_SHOWN_ENTRIES = 20
# Remedies for common reason codes; the administrator's guide has the complete table.
_REMEDIES: Final[Mapping[str, str]] = {
    "unknown_api_key": "Compare with `micromegas keys list`; a token has three parts with two dots between them.",
    "api_key_revoked": "Make a new key (`micromegas keys create`) if its bearer should have access.",
    "api_key_expired": "Make a new key (`micromegas keys create`) if its bearer should have access.",
    "legacy_api_key_refused": "Replace it with a key that `micromegas keys create` makes.",
    "denied": "Remove the caller from `denied` if they should have access again.",
    "issuer_unknown": "Compare `iss` with the configured issuers character by character, a trailing slash included.",
    "audience_mismatch": "Sign in with `--audience` for this server, or add the audience to the issuer's entry.",
    "audience_missing": "Sign in with `--audience` for this server, or add the audience to the issuer's entry.",
    "expired": "Sign in again; if fresh tokens are rejected too, compare the clocks of the server and the provider.",
    "not_yet_valid": "The clock here is behind the provider's.",
    "issued_in_the_future": "The clock here is behind the provider's.",
    "unknown_key": "Is it a token of another environment? Compare its `kid` with the provider's keys.",
    "key_refetch_due": "Try again after the cool-down. If it persists, is it a token of another environment?",
    "keys_unavailable": "Is the provider up, and can this machine reach it?",
    "unavailable": "Is the provider up, and can this machine reach it?",
    "signature_wrong": "The token was changed or forged: find out where it comes from.",
    "algorithm_not_allowed": "Only asymmetric signatures are accepted: find out who sends this token.",
    "signature_missing": "Only asymmetric signatures are accepted: find out who sends this token.",
    "not_base64url": "The token was damaged when it was copied.",
    "not_three_segments": "An opaque or encrypted token: ask the provider for a signed one, with an audience.",
    "id_token_as_access_token": "Send the access token, or change `token_kind`.",
    "access_token_as_id_token": "Send the ID token, or change `token_kind`.",
    "client_not_allowed": "Add the application to `client_ids` if it should have access.",
    "subject_not_allowed": "Add the caller to `subjects` if they should have access.",
    "required_claim_missing": "Compare the token's claims with `required_claims`.",
    "required_claim_mismatch": "Compare the token's claims with `required_claims`.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """One step: whether the token passed (None if undecided), what was checked, and what was found."""

    is_passed: bool | None
    title: str
    found: str


@dataclass(frozen=True, slots=True)
class _Case:
    token: ParsedToken | None
    length: int
    denied_count: int
    issuers: tuple[IssuerSetting, ...]
    issuer: IssuerSetting | None
    now: datetime

    @property
    def claims(self) -> Mapping[str, object]:
        return {} if self.token is None else self.token.claims

    def claim(self, *names: str) -> str:
        """Return those of the claims that the token has, each in the form `name value`."""
        stated = [f"{name} {_shown(self.claims[name])}" for name in names if name in self.claims]
        return ", ".join(stated) or f"no {' and no '.join(names)}"


def explain_decision(
    token: str, decision: Decision, *, settings: AccessSettings, now: datetime
) -> tuple[ExplainedStep, ...]:
    """Return the steps that led to the `decision` about `token`; the last one contains the reason."""
    if isinstance(decision, Accepted) and decision.context.auth_type is AuthType.API_KEY:
        return (ExplainedStep(is_passed=True, title="API key", found=f"the key of {_shown(decision.context.subject)}"),)
    reason = None if isinstance(decision, Accepted) else decision.reason
    is_key = reason is not None and reason.startswith(("api_key_", "legacy_api_key"))
    if reason is not None and (is_key or decision.claimed.issuer == API_KEY_ISSUER):
        name = f" of {_shown(decision.claimed.subject)}" if decision.claimed.subject else ""
        return (ExplainedStep(is_passed=False, title="API key", found=f"the key{name}"), _ending(reason))
    if reason == "unknown_api_key":
        return (ExplainedStep(is_passed=False, title="API key", found="not known here"), _ending(reason))
    case = _case(token, settings, now)
    steps = [ExplainedStep(is_passed=True, title="API key", found="not known here, so it is read as a token")]
    for title, reasons, find in _STEPS:
        is_end = reason is not None and reason in reasons
        is_passed = None if is_end and isinstance(decision, Undecided) else not is_end
        steps.append(ExplainedStep(is_passed=is_passed, title=title, found=find(case)))
        if is_end:
            return (*steps, _ending(str(reason)))
    # An unknown reason can't be assigned to a step, so only the first step is certain.
    return tuple(steps) if reason is None else (steps[0], _ending(reason))


def describe_outcome(decision: Decision) -> str:
    """Return one line with the caller or the reason code."""
    if isinstance(decision, Accepted):
        return f"accepted: {_described(decision.context)}"
    if isinstance(decision, Refused):
        return f"refused: {decision.reason}"
    return f"not decided: {decision.reason}; the same token may be accepted later"


def _described(context: AuthContext) -> str:
    parts = [f"subject {_shown(context.subject)} of {_shown(context.issuer)}"]
    if context.email is not None:
        parts.append(f"email {_shown(context.email)} ({'verified' if context.email_verified else 'not verified'})")
    parts.append("administrator" if context.is_admin else "not an administrator")
    if context.groups:
        parts.append(f"groups {_shown(list(context.groups))}")
    if context.roles:
        parts.append(f"roles {_shown(list(context.roles))}")
    if context.table_access is not None:
        filters = context.table_access.filters
        parts.append(f"tables {_shown(sorted(filters)) if filters else 'none'}")
    if context.max_scan_bytes is not None:
        parts.append(f"reads at most {context.max_scan_bytes:,} bytes with one statement")
    access = context.write_access
    if access.ingest or access.creates:
        parts.append(f"sends rows to {_shown(sorted(access.ingest | access.creates))}")
    if access.owns:
        parts.append(f"owns {_shown(sorted(access.owns))}")
    if context.scopes != frozenset({READ_SCOPE}):
        parts.append(f"for {_shown(sorted(context.scopes))} only")
    if context.expires_at is not None:
        parts.append(f"until {_utc(context.expires_at)}")
    return ", ".join(parts)


def _ending(reason: str) -> ExplainedStep:
    remedy = _REMEDIES.get(reason, 'See "Reasons for rejected credentials" in docs/errors.md.')
    return ExplainedStep(is_passed=None, title="reason", found=f"{reason}. {remedy}")


def _case(token: str, settings: AccessSettings, now: datetime) -> _Case:
    try:
        parsed: ParsedToken | None = parse_token(token)
    except TokenProblem:
        parsed = None
    issuers = () if settings.oidc is None else settings.oidc.issuers
    stated = None if parsed is None else parsed.claims.get("iss")
    issuer = next((one for one in issuers if stated == one.issuer or stated in one.aliases), None)
    return _Case(parsed, len(token), len(settings.denied), issuers, issuer, now)


def _header(case: _Case) -> str:
    if case.token is None:
        return "wanted: alg, no crit, typ JWT or at+jwt or none, kid a short text"
    header = case.token.header
    return ", ".join(f"{name} {_shown(header[name])}" for name in ("alg", "typ", "kid") if name in header)


def _algorithm(case: _Case) -> str:
    accepted = sorted(case.issuer.algorithms) if case.issuer else "asymmetric ones only"
    return f"{'' if case.token is None else _shown(case.token.algorithm)}, accepted: {_shown(accepted)}"


def _issuer(case: _Case) -> str:
    configured = [name for one in case.issuers for name in (one.issuer, *one.aliases)]
    return f"{case.claim('iss')}, configured: {_shown(configured)}"


def _audience(case: _Case) -> str:
    wanted = list(case.issuer.audiences) if case.issuer else []
    return f"{case.claim('aud')}, accepted: {_shown(wanted) if wanted else 'tokens without an audience only'}"


def _times(case: _Case) -> str:
    leeway = case.issuer.leeway_seconds if case.issuer else 0
    stated = [f"{name} {_time(case.claims[name], case.now)}" for name in ("exp", "nbf", "iat") if name in case.claims]
    return f"{', '.join(stated) or 'no times'}; here it is {_utc(case.now)}, leeway {leeway} s"


def _kind(case: _Case) -> str:
    wanted = case.issuer.token_kind.value if case.issuer else "either"
    marks = ("token_use", "typ", "at_hash", "scope", "scp", "nonce", "cnf", "events")
    # Show only the names, because some values are sign-in secrets.
    found = ", ".join(name for name in marks if name in case.claims) or "none"
    return f"accepted: {wanted}; marks in the token: {found}"


def _conditions(case: _Case) -> str:
    if case.issuer is None:
        return ""
    required, client_ids = case.issuer.required_claims, case.issuer.client_ids
    wanted = [f"{name} one of {_shown(list(values))}" for name, values in required.items()]
    if client_ids:
        wanted.append(f"application one of {_shown(list(client_ids))}")
    names = (*required, *(CLIENT_CLAIMS if client_ids else ()))
    return f"required: {'; '.join(wanted)}; token: {case.claim(*names)}" if wanted else "none required"


def _key(case: _Case) -> str:
    key_id = None if case.token is None else case.token.key_id
    named = "no kid" if key_id is None else f"kid {_shown(key_id)}"
    return f"{named}, keys of {_shown(case.issuer.issuer) if case.issuer else 'no issuer'}"


def _admission(case: _Case) -> str:
    listed = "subjects are listed" if case.issuer and case.issuer.subjects else "every subject"
    return f"{listed}, {case.denied_count} denied"


# Each step's title, its reason codes, and a function that describes the finding.
_STEPS: Final[tuple[tuple[str, Collection[str], Callable[[_Case], str]], ...]] = (
    ("size", {"token_implausible", "token_too_large", "token_empty", "token_not_ascii"},
     lambda case: f"{case.length} characters, at most {MAX_TOKEN_BYTES} are read"),
    ("form", {"not_three_segments", "not_base64url", "header_malformed", "claims_malformed", "signature_missing"},
     lambda _: "wanted: three segments of base64url, two JSON objects with unique names and a signature"),
    ("header", {"algorithm_missing", "critical_extension", "type_not_accepted", "key_id_malformed"}, _header),
    ("algorithm", {"algorithm_not_allowed"}, _algorithm),
    ("issuer", {"issuer_unknown", "issuer_mismatch"}, _issuer),
    ("audience", {"audience_missing", "audience_malformed", "audience_mismatch"}, _audience),
    ("times", {"expired", "expiry_missing", "expiry_malformed", "not_yet_valid", "not_before_missing",
               "not_before_malformed", "issued_in_the_future", "issued_at_missing", "issued_at_malformed"}, _times),
    ("kind", {"sender_constrained", "not_a_bearer_token", "id_token_as_access_token", "access_token_as_id_token",
              "type_not_at_jwt", "client_id_missing", "client_id_malformed", "token_id_missing", "token_id_malformed"},
     _kind),
    ("conditions", {"tenant_mismatch", "required_claim_missing", "required_claim_mismatch", "client_not_allowed"},
     _conditions),
    ("subject", {"subject_missing", "subject_malformed"},
     lambda case: case.claim(case.issuer.subject_claim if case.issuer else "sub")),
    ("key", {"unknown_key", "key_refetch_due", "key_does_not_fit", "keys_unavailable", "unavailable"}, _key),
    ("signature", {"signature_wrong"}, lambda _: "wanted: made by that key over exactly these bytes"),
    ("admission", {"subject_not_allowed", "denied"}, _admission),
)  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, list):
        more = len(value) - _MAX_SHOWN_ENTRIES
        entries = ", ".join(_shown(entry) for entry in value[:_MAX_SHOWN_ENTRIES])
        return f"{entries} and {more} more" if more > 0 else entries
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
    return cut if cut.isprintable() and cut else ascii(cut)


def _time(value: object, now: datetime) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _YEAR_10000_SECONDS:
        return _shown(value)
    time = datetime.fromtimestamp(value, UTC)
    seconds = (time - now).total_seconds()
    return f"{_utc(time)} ({f'in {seconds:,.0f} s' if seconds >= 0 else f'{-seconds:,.0f} s ago'})"


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
