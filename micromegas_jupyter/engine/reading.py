"""What the text of a statement alone tells, the same for every caller: whether it is within limits, and what it names.

Texts that come again are not read again. What a statement means over a caller's tables is the engine's business.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.denials import DENIAL_NAMES, with_denial_as_rows
from micromegas_jupyter.engine.guard import check_nothing_is_left_out, check_statement
from micromegas_jupyter.engine.identity import IDENTITY_NAMES, with_identity_syntax
from micromegas_jupyter.engine.parameters import Placeholders, find_placeholders
from micromegas_jupyter.engine.scanner import Mention, find_mentions

if TYPE_CHECKING:
    from collections.abc import Callable

#: Longer texts are read each time, so that what is kept stays below some 25 MiB whatever it is.
_MAX_KEPT_LENGTH: Final = 4096
_MAX_KEPT: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A statement's text, read.

    Attributes:
        placeholders: What it wants bound.
        mentions: What it may refer to.
        needs_nothing: Whether it mentions no function that a caller's session is given.
    """

    placeholders: Placeholders
    mentions: Mention
    needs_nothing: bool

    @property
    def names_join(self) -> bool:
        """Return whether it is likely to have a join; others have one, too, such as sub-queries in conditions."""
        return "join" in self.mentions.names


def read_statement(sql: str, *, max_bytes: int, knows_denials: bool) -> Reading:
    """Return what a text tells."""
    read: Callable[[str, int, bool], Reading] = _read if len(sql) > _MAX_KEPT_LENGTH else _kept
    return read(sql, max_bytes, knows_denials)


def _read(sql: str, max_bytes: int, knows_denials: bool) -> Reading:  # noqa: FBT001 - what is kept is kept by position
    scanned = check_statement(sql, max_bytes=max_bytes)
    check_nothing_is_left_out(scanned)
    scanned = with_identity_syntax(scanned)
    if knows_denials:
        scanned = with_denial_as_rows(scanned)
    mentions = find_mentions(scanned)
    return Reading(
        placeholders=find_placeholders(scanned),
        mentions=mentions,
        needs_nothing=mentions.text is None and mentions.names.isdisjoint(IDENTITY_NAMES | DENIAL_NAMES),
    )


_kept: Final = functools.lru_cache(maxsize=_MAX_KEPT)(_read)
