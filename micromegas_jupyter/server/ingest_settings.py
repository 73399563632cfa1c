"""How much a caller may send into the tables; reading this from the environment is assembly's job."""

from dataclasses import dataclass

from micromegas_jupyter.flightsql.decoding import DecodeLimits

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """The limits of ingest, each for one server process.

    Attributes:
        max_bytes: What one call may send, counted both as it comes and as it is once nothing in it is shared.
        max_rows: The rows of one call.
        max_row_bytes: The most that is unpacked at a time, and so the most that one row may take.
        max_columns: The columns of one call.
        max_batch_rows: The rows of one message.
        max_dictionary_bytes: The dictionaries that one call has in use.
        max_concurrent: Calls at once.
        max_per_caller: Of these, those of one caller.
        max_tables_per_caller: The tables that one caller may make who is not an administrator.
        admission_wait_seconds: How long a call waits for its turn before it is refused.
        idle_seconds: How long a call may send nothing.
        max_seconds: How long a call may take in all.

    Raises:
        ValueError: A number is not greater than 0.
    """

    max_bytes: int = 1024 * _MEBIBYTE
    max_rows: int = 50_000_000
    max_row_bytes: int = 16 * _MEBIBYTE
    max_columns: int = 512
    max_batch_rows: int = 2 * _MEBIBYTE
    max_dictionary_bytes: int = 32 * _MEBIBYTE
    max_concurrent: int = 16
    max_per_caller: int = 8
    max_tables_per_caller: int = 100
    admission_wait_seconds: float = 30.0
    idle_seconds: float = 60.0
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if min(getattr(self, name) for name in self.__slots__) <= 0:
            raise ValueError("the limits of ingest are greater than 0")

    def decode_limits(self) -> DecodeLimits:
        """Return what the decoder of one call accepts."""
        return DecodeLimits(
            max_columns=self.max_columns,
            max_batch_rows=self.max_batch_rows,
            max_unpacked_bytes=4 * self.max_row_bytes,
            max_dictionary_bytes=self.max_dictionary_bytes,
        )
