"""Makes text safe to store: free of secrets, valid Unicode, and limited in length.

Redaction is a second line of defense: it catches secrets that libraries log and users paste, and prefers hiding too
much.
"""

import re

MASK = "***"
_CUT = "… [cut]"

_SECRET_NAME = r"(?:[\w-]{0,40}(?:token|secret|assertion|code_verifier|device_code|password|passwd|api[_-]?key))"  # noqa: S105 - a pattern
_HEADER_NAME = r"(?:set-)?cookie|(?:proxy-)?authorization|x-api-key"
_BEARER = r"bearer(?:[\s:=+]|%20)+(?P<bearer>[^\s\"',;]+)"
# RFC 6749 sections 4.1.2 and 4.1.3: `code` and `state` occur in queries, fragments, and form bodies.
_QUERY = (
    rf"(?:[?&#;]|%3f|%26|%23)(?:{_SECRET_NAME}|code|state|session_state)(?:=|%3d)"
    r"(?P<query>(?:(?!%26|%23)[^&\s\"'<>#])+)"
)
_FORM = (
    rf"(?<![\w%])(?:{_SECRET_NAME}(?:=|%3d|:\s)\s*\\?[\"']?(?P<form>(?:(?!%26|%23)[^&\s\"'<>#,;])+)"
    r"|(?:code|state)=(?P<bare>[\w.~%/+-]{16,}))"
)
_QUOTED = (
    rf"(?:[\"'](?:{_SECRET_NAME}|{_HEADER_NAME}|key)\\?[\"']\s*[:=]\s*\\?b?[\"']"
    # A pair, as in printed header lists.
    rf"|[\[(]b?[\"'](?:{_SECRET_NAME}|{_HEADER_NAME})[\"'],\s*b?[\"'])"
    r"(?P<quoted>(?:[^\"'\\]|\\(?![\"']))+)"
)
# An authorization code, but not an error code of this project such as AUTH010.
_CODE = (
    r"[\"']code\\?[\"']\s*[:=]\s*\\?b?[\"'](?!(?-i:[A-Z]{3,5}[0-9]{3})\\?[\"'])"
    r"(?P<code>(?:[^\"'\\]|\\(?![\"']))+)"
)
_HEADER = rf"(?:(?<![a-z0-9-])|(?<=\\n)|(?<=\\r))(?:{_HEADER_NAME})\s*[:=]\s*(?P<header>[^\r\n\"'\\]+)"
_OPTION = rf"(?<!\S)--{_SECRET_NAME}\s+(?P<option>\S+)"
_USER_INFO = r"://[^/\s:@]{1,200}:(?P<user_info>[^/\s@]{1,200})@"

_NAMED = re.compile(
    f"{_BEARER}|{_QUERY}|{_FORM}|{_QUOTED}|{_CODE}|{_HEADER}|{_OPTION}|{_USER_INFO}", re.IGNORECASE | re.ASCII
)
_COMPACT_RUN = re.compile(r"[A-Za-z0-9_.-]{10,}")
# `{` followed by a quote or whitespace in base64url, which starts a JWT header (RFC 7519 section 3).
_HEADER_START = re.compile(r"e(?:y[A-DI-L]|w[k-r0-3])[\w-]{5,}")
_SECRET_PROPERTY = re.compile(
    r"(?:^|[_.-])(?:token|secret|password|passwd|authorization|cookie|code_verifier|api[_-]?key|assertion)$",
    re.IGNORECASE,
)


def redact_secrets(text: str) -> str:
    """Return `text` with bearer tokens, compact JWTs, and secrets in queries, forms, JSON, and headers masked."""
    return _COMPACT_RUN.sub(_mask_compact_token, _NAMED.sub(_mask_value, text))


def is_secret_property(name: str) -> bool:
    """Whether a property with this name contains a secret, regardless of its value."""
    return _SECRET_PROPERTY.search(name) is not None


def bound_text(text: str, *, max_bytes: int) -> str:
    """Return `text` as valid Unicode with at most `max_bytes` bytes of UTF-8; a truncated end is marked."""
    if text.isascii() and len(text) <= max_bytes:
        return text
    # A lone surrogate (PEP 383) has no UTF-8 form; Arrow would reject the whole batch.
    encoded = text.encode("utf-8", errors="replace")
    if len(encoded) <= max_bytes:
        return encoded.decode("utf-8")
    kept = encoded[: max_bytes - len(_CUT.encode())].decode("utf-8", errors="ignore")
    return kept + _CUT


def _mask_value(match: re.Match[str]) -> str:
    start, end = match.span(match.lastgroup or 0)
    return match.string[match.start() : start] + MASK + match.string[end : match.end()]


def _mask_compact_token(match: re.Match[str]) -> str:
    run = match.group()
    # The end of the text counts as the end of a token, so that a truncated token is redacted, too.
    is_cut = match.end() == len(match.string)
    segments = run.split(".")
    position = 0
    for index, segment in enumerate(segments):
        start = _HEADER_START.search(segment)
        if start is not None and (is_cut or index + 2 < len(segments)):
            return run[: position + start.start()] + MASK
        position += len(segment) + 1
    return run
