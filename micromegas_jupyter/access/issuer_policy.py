"""What one issuer's tokens must say: its setting, made ready to be held against many tokens, in a fixed order.

The single rules are `oidc`'s; keys and signatures come between the two halves, and are `oidc_validator`'s to see to.
"""

from micromegas_jupyter.config.access import IssuerSetting, TokenKind
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.claims import (
    check_audience,
    check_bearer_use,
    check_client,
    check_kind,
    check_no_audience,
    check_required_claims,
    check_rfc9068,
    check_times,
    read_subject,
    typed_values,
)
from micromegas_jupyter.oidc.jws import ParsedToken, TokenProblem
from micromegas_jupyter.oidc.keys import check_algorithm

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
