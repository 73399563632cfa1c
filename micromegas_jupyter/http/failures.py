"""Why the network gave no answer, in words that hold no address and no secret.

What to do about it is for the callers to say.
"""

import enum


class FailureKind(enum.Enum):
    """What stood in the way of an answer, as far as somebody can do something about it."""

    NAME = "name"  # there is no such host
    REFUSED = "refused"  # nobody listens there
    TLS = "tls"
    PROXY = "proxy"
    OTHER = "other"


class ExchangeFailed(Exception):
    """The network gave no answer; `args[0]` says why in words that hold no address and no secret.

    Args:
        why: What happened.
        kind: What stood in the way.
    """

    def __init__(self, why: str, kind: FailureKind = FailureKind.OTHER) -> None:
        super().__init__(why)
        self.kind = kind
