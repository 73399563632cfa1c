"""What kind of program calls: agent, entry point and session, as upstream's client finds them.

These are for the server's audit only and decide nothing. How they travel is in `headers`.
"""

import re
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.errors import UsageError

# Printable ASCII of at most 64 characters (COMPAT: `x-client-agent`).
_TAG: Final = re.compile(r"[\x20-\x7e]{1,64}")
_AGENT_MARKS: Final = {"CLAUDECODE": "claude-code"}
_SESSION_VARIABLES: Final = ("CLAUDE_CODE_SESSION_ID",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """The three tags of a client object."""

    agent: str
    entrypoint: str
    session: str


def find_attribution(environ: Mapping[str, str], *, entrypoint: str | None = None) -> Attribution:
    """Return the tags of this process.

    Args:
        environ: The process environment; values in it that cannot be sent are passed over.
        entrypoint: The caller's own name for how it was started.

    Raises:
        UsageError: `entrypoint` cannot be sent.
    """
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
