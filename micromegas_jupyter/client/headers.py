"""Call metadata: what a query asks for besides its SQL, what the client says about itself, what servers note.

The checks are not a courtesy: the Flight library ends the whole process over a key in upper case or a value that is
not printable ASCII. Who the caller is goes through `credentials`; the tags are for the server's audit only.
"""

import logging
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.flightsql.error_details import printable_text

# Printable ASCII of at most 64 characters (COMPAT: `x-client-agent`).
_TAG: Final = re.compile(r"[\x20-\x7e]{1,64}")
_AGENT_MARKS: Final = {"CLAUDECODE": "claude-code"}
_SESSION_VARIABLES: Final = ("CLAUDE_CODE_SESSION_ID",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What a client says about itself with every call, as upstream's client does; for the server's audit only."""

    agent: str
    entrypoint: str
    session: str


def find_attribution(environ: Mapping[str, str], *, entrypoint: str | None = None) -> Attribution:
    """Return the tags of this process."""
    if entrypoint and _tag(entrypoint) is None:
        raise UsageError("client_entrypoint cannot be sent.", remedy="Use at most 64 printable ASCII characters.")
    marked = next((agent for variable, agent in _AGENT_MARKS.items() if environ.get(variable)), "none")
    sessions = (_tag(environ.get(variable)) for variable in _SESSION_VARIABLES)
    return Attribution(
        agent=_tag(environ.get("MICROMEGAS_CLIENT_AGENT")) or marked,
        entrypoint=entrypoint or _tag(environ.get("MICROMEGAS_CLIENT_ENTRYPOINT")) or _detect_entrypoint(),
        session=next((session for session in sessions if session), None) or str(uuid.uuid4()),
    )


def _tag(text: str | None) -> str | None:
    return text if isinstance(text, str) and _TAG.fullmatch(text) else None


def _detect_entrypoint() -> str:
    if "ipykernel" in sys.modules:
        return "jupyter"
    if sys.argv and sys.argv[0] == "-c":
        return "script"
    is_interactive = sys.flags.interactive or not hasattr(sys.modules.get("__main__"), "__file__")
    return "repl" if is_interactive else "script"


Header = tuple[bytes, bytes]
"""A key in lower case and a value of printable ASCII, as the Flight library takes them."""

MAX_HEADER_VALUE_BYTES: Final = 16 * 1024

# gRPC over HTTP/2, "Header-Name"; names that begin with grpc- are gRPC's own.
_KEY: Final = re.compile(r"(?!grpc-)[0-9a-z_.-]{1,128}")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")


def build_tag_headers(tags: Attribution) -> tuple[Header, ...]:
    """Return the metadata that says what kind of client calls."""
    found = {
        "x-client-type": "python",
        "x-client-agent": tags.agent,
        "x-client-entrypoint": tags.entrypoint,
        "x-client-session": tags.session,
    }
    return tuple(build_header(key, value) for key, value in found.items() if value)


def build_option_headers(
    *, begin: str | None = None, end: str | None = None, limit: int | None = None, preserve_dictionary: bool = False
) -> tuple[Header, ...]:
    """Return the metadata of what a query asks for besides its SQL; `begin` and `end` are RFC 3339."""
    if limit is not None and (type(limit) is not int or not 0 <= limit < 2**63):
        raise UsageError("The limit is not a whole number of rows.", remedy="Give 0 or more, or leave it out.")
    found = {
        "query_range_begin": begin,
        "query_range_end": end,
        "limit": None if limit is None else str(limit),
        "preserve_dictionary": "true" if preserve_dictionary else None,
    }
    return tuple(build_header(key, value) for key, value in found.items() if value is not None)


def build_header(key: str | bytes, value: str | bytes) -> Header:
    """Return a checked header; the key becomes lower case. An error never holds the value."""
    key_text, value_text = _as_text(key).lower(), _as_text(value)
    if _KEY.fullmatch(key_text) is None:
        raise UsageError("The name of a header cannot be sent.", remedy="Use letters, digits, '-', '_' and '.'.")
    if _VALUE.fullmatch(value_text) is None or len(value_text) > MAX_HEADER_VALUE_BYTES:
        raise UsageError(
            f"The value of the header {key_text} cannot be sent.",
            remedy="It must be printable ASCII without line breaks, of at most 16 kB.",
        )
    return key_text.encode("ascii"), value_text.encode("ascii")


def parse_static_headers(
    headers: Mapping[str | bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]],
) -> tuple[Header, ...]:
    """Read upstream's `headers` argument: a mapping, or pairs."""
    try:
        pairs = [(key, value) for key, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise UsageError("headers is neither a mapping nor a list of pairs.") from None
    return tuple(build_header(key, value) for key, value in pairs)


def _as_text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")  # every byte becomes a character, so that the checks judge it
    if isinstance(value, str):
        return value
    raise UsageError("A header is neither text nor bytes.")


NOTICE_KEY: Final = "x-micromegas-notice"

_MAX_CHARACTERS: Final = 256
_MAX_TEXTS: Final = 4
_LOG: Final = logging.getLogger("micromegas_jupyter.client")


class Notices:
    """The notices of one client. One lock guards which texts are known; it is free while one is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._tell: Callable[[str], None] = _log

    def tell_to(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with each new text, on any thread, in place of a warning in the log."""
        self._tell = tell

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Tell a notice that stands in a call's metadata, unless it is known; the sender is not trusted."""
        texts = headers.get(NOTICE_KEY, ())
        if not texts or not isinstance(texts[0], str):
            return
        text = " ".join(printable_text(texts[0][:_MAX_CHARACTERS]).split())
        with self._lock:
            if not text or text in self._known or len(self._known) >= _MAX_TEXTS:
                return
            self._known.add(text)
        # Whoever shows it decides nothing about the call.
        with suppress(Exception):
            self._tell(text)


def _log(text: str) -> None:
    _LOG.warning("The server says: %s", text)
