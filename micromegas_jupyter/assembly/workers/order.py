"""What a supervisor tells a new worker first: what to serve, as which worker, within which memory.

It goes over the pair of sockets, never as an argument or a variable, for it holds secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self

from micromegas_jupyter.assembly.serve_options import ServeOptions
from micromegas_jupyter.errors import InternalError
from micromegas_jupyter.seams import Variables
from micromegas_jupyter.settings import LegacyApiKeys

_PATHS = ("lake", "certificate_file", "key_file", "client_ca_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """One worker's task.

    Attributes:
        kind: `serve` for a whole server over a lake, `local` for a notebook's.
        task: What to serve, as the kind needs it.
        port: The port to listen on, which others share.
        number: Which worker it is, from 1; a replacement has the number of the one before. 0 for one that waits.
        pool_bytes: Memory for its queries.
        hard_bytes: What the operating system gives it at most.
        is_spare: Whether it waits to be told before it listens.
        secret: Random bytes that all workers of a server have and nobody else (hexadecimal).
    """

    kind: str
    task: Mapping[str, object] = field(repr=False)
    port: int
    number: int
    pool_bytes: int
    hard_bytes: int
    is_spare: bool = False
    secret: str = field(default="", repr=False)

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads."""
        return {found.name: getattr(self, found.name) for found in fields(self)}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Self:
        """Read an order.

        Raises:
            InternalError: It is not one.
        """
        try:
            return cls(**{one.name: found[one.name] for one in fields(cls)})  # type: ignore[arg-type]  # our own words
        except KeyError:
            raise InternalError("A worker process was told something that it cannot read.") from None


def describe_serving(options: ServeOptions, environ: Mapping[str, str]) -> dict[str, object]:
    """Return the task of a worker of `micromegas serve`."""
    values: dict[str, object] = {found.name: getattr(options, found.name) for found in fields(options)}
    for name in _PATHS:
        values[name] = None if values[name] is None else str(Path(str(values[name])).absolute())
    values["legacy_api_keys"] = None if options.legacy_api_keys is None else options.legacy_api_keys.value
    values["trusted_proxies"] = sorted(options.trusted_proxies)
    values["properties"] = dict(options.properties)
    return {"options": values, "environ": dict(environ)}


def read_serving(order: WorkerOrder) -> tuple[ServeOptions, Variables]:
    """Return the options and variables of a worker of `micromegas serve`."""
    match order.task:
        case {"options": dict(values), "environ": dict(environ)}:
            pass
        case _:
            raise InternalError("A worker process was told something that it cannot read.")
    for name in _PATHS:
        values[name] = None if values[name] is None else Path(values[name])
    legacy = values["legacy_api_keys"]
    values["legacy_api_keys"] = None if legacy is None else LegacyApiKeys(legacy)
    values["trusted_proxies"] = frozenset(values["trusted_proxies"])
    options = ServeOptions(**values)
    properties = {**options.properties, "worker": str(order.number)}
    # Health and metrics over HTTP are the supervisor's.
    return replace(options, port=order.port, http_port=None, properties=properties), Variables(environ)
