"""Which statements may be sent a second time after a renewed sign-in.

Sending them is `connection`'s and `query_reader`'s job; whether a statement is allowed at all is the server's.
"""

import re
from typing import Final

_WRITES: Final = re.compile(
    r"""
      \b (?: insert \s+ (?:into|overwrite) | delete \s+ from | merge \s+ into | replace \s+ into ) \b
    | \b update \s+ \S+ \s+ set \b
    | (?: \A | [;)] ) \s* (?: create | drop | alter | truncate | copy | grant | revoke | call | set | update | insert
                            | delete | replace | vacuum | refresh | execute | do | begin | start ) \b
    | \b (?: retire_partition\w* | materialize_partitions | regenerate_partitions | deny_queries
           | remove_query_denial\w* | delete_\w+ ) "? \s* \(
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A string that holds the signs of a comment loses its repetition at most.
_COMMENTS: Final = re.compile(r"--[^\n]*+ | /\*.*?(?:\*/ | \Z)", re.VERBOSE | re.DOTALL)


def may_be_repeated(sql: str) -> bool:
    """Whether a statement only reads, as far as its text tells; a doubt counts as no.

    Upstream changes partitions through functions that stand in a SELECT, so those count as writes too.
    """
    return _WRITES.search(sql) is None and _WRITES.search(_COMMENTS.sub(" ", sql)) is None
