"""Makes text that a provider wrote fit to be shown to a person.

Which text to show is the caller's choice.
"""

import re
from collections.abc import Collection
from urllib.parse import quote, quote_plus

from micromegas_jupyter.core.secrets import Secret

MAX_SHOWN_CHARACTERS = 200

_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Codes and tokens are long runs without a space; words are not.
_LONG_RUN = re.compile(r"[^\s]{32,}")


def clean_provider_text(text: str, *, secrets: Collection[Secret] = ()) -> str:
    """Return `text` without control characters, markup, long runs that could be tokens, and the given secrets.

    Source: RFC 6749 section 5.2 allows printable ASCII only; RFC 8628 section 5.3; SECURITY A23.
    """
    for written in _written(secrets):
        text = text.replace(written, "…")
    printable = "".join(c if c.isprintable() and c not in "<>&" else " " for c in text[: 10 * MAX_SHOWN_CHARACTERS])
    words = " ".join(_LONG_RUN.sub("…", printable).split())
    return words if len(words) <= MAX_SHOWN_CHARACTERS else words[:MAX_SHOWN_CHARACTERS] + "…"


def describe_provider_error(code: object, description: object, *, secrets: Collection[Secret] = ()) -> str:
    """Return an OAuth error code with its description, as one short phrase.

    Source: RFC 6749 sections 4.1.2.1 and 5.2.
    """
    shown = "an unreadable error code"
    if isinstance(code, str) and _ERROR_CODE.fullmatch(code) and not any(map(code.__contains__, _written(secrets))):
        shown = code
    detail = clean_provider_text(description, secrets=secrets) if isinstance(description, str) else ""
    return f"{shown}: {detail}" if detail else shown


def _written(secrets: Collection[Secret]) -> list[str]:
    """Return the secrets as they are, and as a form or an address writes them; longer ones first."""
    texts = [secret.reveal() for secret in secrets if secret.reveal()]
    found = {written for text in texts for written in (text, quote_plus(text), quote(text, safe=""))}
    return sorted(found, key=len, reverse=True)
