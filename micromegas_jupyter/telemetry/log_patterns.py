"""Groups log messages by pattern: Drain (He et al., ICWS 2017) over messages whose numbers and IDs are masked."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

WILDCARD: Final = "<*>"
_MAX_CHARACTERS: Final = 4096
_MAX_TOKENS: Final = 60
_MAX_CHILDREN: Final = 100
_MAX_KNOWN: Final = 100_000
_PREFIX_TOKENS: Final = 2
#: The share of tokens, not counting wildcards, that a message must have in common with its pattern.
_MIN_SIMILARITY: Final = 0.6
#: A message is compared with at most this many patterns with the same start, newest first.
_MAX_COMPARED: Final = 200
_MAX_PATTERNS: Final = 10_000
# UUIDs, hexadecimal numbers, and numbers, times, dates, and addresses, with or without a unit. Each starts at a word
# boundary, which keeps the search fast.
_VARIABLE: Final = re.compile(
    r"\b(?:[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|0x[0-9a-fA-F]+|\d[0-9a-fA-F]{7,}"
    r"|(?=[a-f]+\d)[0-9a-f]{8,}|\d[\d.,:_-]*(?:[a-zA-Z%]{1,3})?)(?!\w)"
)
_DIGIT: Final = re.compile(r"\d")


def mask_variables(text: str) -> str:
    """Return the text with `<*>` in place of numbers, times, addresses, and IDs.

    >>> mask_variables("worker 14 took 3.5ms for 10.0.0.7:443")
    'worker <*> took <*> for <*>'
    """
    return _VARIABLE.sub(WILDCARD, text)


@dataclass(slots=True, eq=False)
class LogPattern:
    """Messages that differ only where `text` has `<*>`."""

    tokens: list[str]
    count: int = 0

    @property
    def text(self) -> str:
        """Return the pattern as text."""
        return " ".join(self.tokens)


@dataclass(slots=True)
class _Node:
    children: "dict[str, _Node]" = field(default_factory=dict)
    patterns: list[LogPattern] = field(default_factory=list)


class LogPatterns:
    """The patterns of a stream of messages, in the order in which they appeared.

    A pattern becomes more general as messages arrive, so show its text only after they have been added. After 10,000
    patterns, messages that match none share the pattern `<*>`.
    """

    def __init__(self) -> None:
        self.patterns: list[LogPattern] = []
        self._other = LogPattern([WILDCARD])
        self._roots: dict[int, _Node] = {}
        # After masking, most messages equal an earlier one.
        self._known: dict[str, LogPattern] = {}

    def add_all(self, messages: Iterable[str]) -> list[LogPattern]:
        """Return the pattern of each message after counting it."""
        return [self.add(message) for message in messages]

    def add(self, message: str) -> LogPattern:
        """Return the pattern of a message after counting it."""
        masked = mask_variables(message[:_MAX_CHARACTERS])
        pattern = self._known.get(masked)
        if pattern is None:
            pattern = self._find(masked.split(None, _MAX_TOKENS)[:_MAX_TOKENS])
            if len(self._known) < _MAX_KNOWN:
                self._known[masked] = pattern
        pattern.count += 1
        return pattern

    def _find(self, tokens: list[str]) -> LogPattern:
        leaf = self._find_leaf(tokens)
        best, best_same, best_wildcards, count = None, -1, -1, len(tokens)
        for pattern in leaf.patterns[-_MAX_COMPARED:]:
            theirs = pattern.tokens
            wildcards = theirs.count(WILDCARD)
            same = sum(map(str.__eq__, tokens, theirs)) - _count_shared_wildcards(tokens, theirs, wildcards)
            if (same, wildcards) > (best_same, best_wildcards):
                best, best_same, best_wildcards = pattern, same, wildcards
        if best is None or best_same < _MIN_SIMILARITY * (count - best_wildcards):
            if len(self.patterns) >= _MAX_PATTERNS:
                return self._other
            best = LogPattern(tokens)
            leaf.patterns.append(best)
            self.patterns.append(best)
            if len(self.patterns) == _MAX_PATTERNS:
                self.patterns.append(self._other)
        else:
            best.tokens = [
                mine if mine == theirs else WILDCARD for mine, theirs in zip(tokens, best.tokens, strict=True)
            ]
        return best

    def _find_leaf(self, tokens: list[str]) -> _Node:
        node = self._roots.setdefault(len(tokens), _Node())
        for token in tokens[:_PREFIX_TOKENS]:
            step = WILDCARD if _DIGIT.search(token) else token
            child = node.children.get(step)
            if child is None:
                if len(node.children) >= _MAX_CHILDREN:
                    step = WILDCARD
                child = node.children.setdefault(step, _Node())
            node = child
        return node


def _count_shared_wildcards(tokens: list[str], theirs: list[str], wildcards: int) -> int:
    """Return how many tokens are wildcards in both."""
    if not wildcards or WILDCARD not in tokens:
        return 0
    return sum(mine == WILDCARD == other for mine, other in zip(tokens, theirs, strict=True))
