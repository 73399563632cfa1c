"""Audit events: fixed sentences with facts as fields, and never a credential among them.

Where events go, and in which format, is for whoever adds a handler to the logger `micromegas_jupyter.access`.
"""

import contextlib
import logging
from typing import assert_never

from micromegas_jupyter.access.credential import token_name
from micromegas_jupyter.access.decision import Accepted, Decision, Refused, Undecided

LOGGER = logging.getLogger("micromegas_jupyter.access")

MAX_FIELD_CHARACTERS = 256


def record_decision(decision: Decision, token: object) -> None:
    """Log one finding. A log handler that fails changes nothing about the finding."""
    match decision:
        case Accepted():
            sentence, outcome, reason, level = "A credential was accepted.", "accepted", None, logging.INFO
        case Refused():
            sentence, outcome, reason, level = "A credential was refused.", "refused", decision.reason, logging.INFO
        case Undecided():
            sentence, outcome, level = "A credential could not be checked.", "undecided", logging.WARNING
            reason = decision.reason
        case _:
            assert_never(decision)
    if not LOGGER.isEnabledFor(level):
        return
    issuer, subject = decision.claimed.issuer, decision.claimed.subject
    if isinstance(decision, Accepted):
        issuer, subject = decision.context.issuer, decision.context.subject
    record_event(
        level,
        sentence,
        outcome=outcome,
        reason=reason,
        issuer=issuer,
        subject=subject,
        kid=decision.claimed.key_id,
        token=token_name(token),
    )


def record_event(level: int, sentence: str, **facts: str | float | None) -> None:
    """Log `sentence` with `facts` as fields of the record, each bounded and in one line. Never raises."""
    # A failing log sink neither opens the door nor closes it.
    with contextlib.suppress(Exception):
        LOGGER.log(level, sentence, extra={name: _presentable(fact) for name, fact in facts.items()})


def _presentable(fact: str | float | None) -> str | float | None:
    if not isinstance(fact, str):
        return fact
    shown = (
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in fact[:MAX_FIELD_CHARACTERS]
    )
    return "".join(shown)[:MAX_FIELD_CHARACTERS]
