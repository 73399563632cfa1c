"""What to do about the common reason codes, in a sentence; the whole table is in the administrator's guide."""

from collections.abc import Set as AbstractSet
from typing import Final

_REMEDIES: Final[tuple[tuple[AbstractSet[str], str], ...]] = (
    ({"unknown_api_key"}, "Compare with `micromegas keys list`; a token has three parts with two dots between them."),
    ({"api_key_revoked", "api_key_expired"}, "Make a new key (`micromegas keys create`), if its bearer may come in."),
    ({"legacy_api_key_refused"}, "Replace it with a key that `micromegas keys create` makes."),
    ({"denied"}, "Take the caller out of `denied`, if they may come in again."),
    ({"issuer_unknown"}, "Compare `iss` with the configured issuers character by character, a last slash included."),
    ({"audience_mismatch", "audience_missing"}, "Sign in with `--audience` for this server, or add the audience."),
    ({"expired"}, "Sign in again; if fresh tokens are refused so, compare the clocks of server and provider."),
    ({"not_yet_valid", "issued_in_the_future"}, "The clock here is behind the provider's."),
    ({"unknown_key"}, "Is it a token of another environment? After a rotation it ends within the cool-down."),
    ({"keys_unavailable", "unavailable"}, "Is the provider up, and can this machine reach it?"),
    ({"signature_wrong"}, "The token was changed or forged: look where it comes from."),
    ({"algorithm_not_allowed", "signature_missing"}, "Only asymmetric signatures count: look who sends this."),
    ({"not_base64url", "header_malformed", "claims_malformed"}, "The token was damaged when it was copied."),
    ({"not_three_segments"}, "An opaque or encrypted token: ask the provider for a signed one, with an audience."),
    ({"id_token_as_access_token", "access_token_as_id_token"}, "Send the other token, or change `token_kind`."),
    ({"client_not_allowed"}, "Add the application to `client_ids`, if it may come in."),
    ({"subject_not_allowed"}, "Add the caller to `subjects`, if they may come in."),
    ({"required_claim_missing", "required_claim_mismatch"}, "Compare the token's claims with `required_claims`."),
)  # fmt: skip


def remedy_for(reason: str) -> str:
    """Return what to do about a reason code."""
    return next((text for reasons, text in _REMEDIES if reason in reasons), "See docs/access-reasons.md.")
