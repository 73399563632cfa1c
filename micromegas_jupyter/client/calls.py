"""One call as it is about to be made: to whom, with which metadata, until when.

Making it is `transport`'s job.
"""

from dataclasses import dataclass, field
from datetime import datetime

from micromegas_jupyter.client.call_record import CallRecord
from micromegas_jupyter.client.credentials import Credential
from micromegas_jupyter.client.headers import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to a server.

    Attributes:
        server: Host and port, for messages.
        is_encrypted: Whether the connection uses TLS.
        shows_certificate: Whether a certificate is shown to a server that asks for one.
        credential: Who makes it.
        headers: What it asks for besides its payload; without the credential.
        timeout_seconds: How long it may last, None for as long as it takes.
        started_at: When it is made (aware UTC).
        record: What comes back beside the data.
    """

    server: str
    is_encrypted: bool = False
    shows_certificate: bool = False
    credential: Credential
    headers: tuple[Header, ...] = ()
    timeout_seconds: float | None = None
    started_at: datetime
    record: CallRecord = field(default_factory=CallRecord)
