"""What a worker serves: the whole server of `micromegas serve`, or the small one of a notebook."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from micromegas_jupyter.assembly.workers.order import WorkerOrder, read_serving
from micromegas_jupyter.assembly.workers.others_answers import OthersAnswers
from micromegas_jupyter.assembly.workers.peer import Facts
from micromegas_jupyter.errors import InternalError, Unavailable, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.assembly.server_side import ServerStack
    from micromegas_jupyter.contracts import TableSource
    from micromegas_jupyter.engine.owner import QueryOwner
    from micromegas_jupyter.server.neighbours import Neighbours
    from micromegas_jupyter.server.running_queries import CancelStatus

_STUCK_LAST_SECONDS = 0.7
_NEEDED = "Name a folder of *.parquet files, or of folders of them."


class Asks(Protocol):
    """What asks the other workers."""

    def ask_others(self, what: str, **facts: object) -> OthersAnswers:
        """Return what the other workers answer."""
        ...


class Others(Asks, Protocol):
    """What a server needs of the process that it runs in."""

    def tell(self, what: str, **facts: object) -> None:
        """Tell the supervisor something."""
        ...

    def retire(self, seconds: float, why: str, *, last_seconds: float) -> None:
        """End the process, its calls first."""
        ...


class Server(Protocol):
    """A server that can be started and stopped."""

    def start(self) -> None:
        """Start to answer calls."""
        ...

    def has_turned(self) -> bool:
        """Whether its event loop has turned since the last call."""
        ...

    def cancel_query(self, key: bytes) -> int:
        """Cancel a query of this process by its key; return a `CancelStatus`."""
        ...

    def running_queries(self) -> "Sequence[QueryOwner]":
        """Return the queries that run in this process, as far as it is known whose they are."""
        ...

    def stop(self, grace_seconds: float, *, why: str) -> None:
        """End its calls and release everything."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server in a worker.

    Attributes:
        server: The server.
        facts: What the supervisor should know once it answers.
        answers: What the supervisor, or another worker through it, may ask.
        be_worker: Tells it before its start that it is another worker than the order said.
        restrain: Refuses a caller's (issuer and subject) queries for some seconds.
    """

    server: Server
    facts: Callable[[], Facts] = dict
    answers: dict[str, Callable[[Facts], Facts]] = field(default_factory=dict)
    be_worker: Callable[[int], None] = field(default=lambda _number: None)
    restrain: Callable[[tuple[str, str], float], None] = field(default=lambda _caller, _seconds: None)

    def start(self) -> None:
        """Start to answer calls."""
        self.server.start()

    def has_turned(self) -> bool:
        """Whether its event loop has turned since the last call."""
        return self.server.has_turned()

    def stop(self, grace_seconds: float, *, why: str) -> None:
        """End its calls and release everything."""
        self.server.stop(grace_seconds, why=why)


def build_served(order: WorkerOrder, others: Others) -> Served:
    """Return what the order asks for, not started.

    Raises:
        MicromegasError: It cannot be served.
    """
    match order.kind:
        case "serve":
            return _build_whole(order, others)
        case "local":
            return _build_local(order, others)
        case _:
            raise InternalError("A worker process was told to serve something that it does not know.")


@dataclass(frozen=True, slots=True)
class _StuckWork:
    """Has the process replaced when cancelled work does not stop; only its end stops that."""

    others: Others

    def suspect(self) -> None:
        """Have a replacement made ready."""
        self.others.tell("suspect")

    def stuck(self, why: str, owners: "Sequence[QueryOwner]") -> None:
        """End the process."""
        told = f"The process of the server that answered this call is replaced, because of another call. {why}"
        self.others.retire(0.0, told, last_seconds=_STUCK_LAST_SECONDS)
        self.others.tell("stuck", why=why, queries=[_facts_of(owner) for owner in owners])


def _facts_of(owner: "QueryOwner") -> Facts:
    from micromegas_jupyter.engine import sql_hash

    return {
        "caller": owner.caller,
        "user": owner.user,
        "query_id": owner.query_id,
        "sql_hash": sql_hash(owner.sql),
    }


def _neighbours(order: WorkerOrder, others: Others) -> "Neighbours":
    from micromegas_jupyter.server.neighbours import Neighbours

    def reload() -> None:
        others.ask_others("reload")

    return Neighbours(ticket_key=order.secret.encode(), cancel=partial(cancel_in_others, others), reload=reload)


async def cancel_in_others(others: Asks, key: bytes) -> "CancelStatus":
    """Cancel a query in the other workers, by its key.

    Raises:
        Unavailable: None of those that answer runs it, and not all have answered.
    """
    import asyncio

    from micromegas_jupyter.server.running_queries import CancelStatus, join_statuses

    answers = await asyncio.to_thread(others.ask_others, "cancel", key=key.hex())
    status = join_statuses({CancelStatus(int(str(answer["status"]))) for answer in answers.found})
    if answers.is_complete:
        return status
    if status is CancelStatus.NOT_CANCELLABLE:
        raise Unavailable("Not every worker process could be asked to cancel a query.")
    return CancelStatus.CANCELLING


def _cancel(server: Server, question: Facts) -> Facts:
    return {"status": int(server.cancel_query(bytes.fromhex(str(question["key"]))))}


def _running(server: Server) -> Facts:
    return {"queries": [_facts_of(owner) for owner in server.running_queries()]}


def _build_whole(order: WorkerOrder, others: Others) -> Served:
    from micromegas_jupyter.assembly.server_side import ServerStack

    options, environ = read_serving(order)
    neighbours = _neighbours(order, others)
    stack = ServerStack(
        replace(options, memory_mib=order.pool_bytes >> 20),
        environ=environ,
        neighbours=neighbours,
        leftover_events=_StuckWork(others),
    )
    return Served(
        server=stack,
        facts=lambda: {"described": stack.described_tables(), "is_recorded": stack.is_recorded},
        answers={
            "cancel": lambda question: _cancel(stack, question),
            "metrics": lambda _question: _metrics(stack),
            "readiness": lambda _question: {"reason": stack.readiness()},
            "queries": lambda _question: _running(stack),
            "reload": lambda _question: _reload(stack),
        },
        restrain=neighbours.restrained.restrain,
        be_worker=lambda number: stack.record_as({"worker": str(number)}),
    )


def _metrics(stack: "ServerStack") -> Facts:
    from prometheus_client.exposition import generate_latest

    text = b"".join(generate_latest(registry) for registry in stack.registries).decode()
    return {"text": text, "pid": os.getpid()}


def _reload(stack: "ServerStack") -> Facts:
    if stack.validator is not None:
        stack.validator.reload()
    return {}


def _build_local(order: WorkerOrder, others: Others) -> Served:
    from micromegas_jupyter.assembly.local_server import LocalServer

    source, problems = _open_source(order)
    key_sha256 = bytes.fromhex(str(order.task["key_sha256"]))
    server = LocalServer(
        source,
        key_sha256=key_sha256,
        memory_mib=order.pool_bytes >> 20,
        port=order.port,
        neighbours=_neighbours(order, others),
        leftover_events=_StuckWork(others),
    )
    return Served(
        server=server,
        facts=lambda: {"tables": list(server.table_names()), "problems": list(problems)},
        answers={
            "cancel": lambda question: _cancel(server, question),
            "queries": lambda _question: _running(server),
        },
    )


def _open_source(order: WorkerOrder) -> "tuple[TableSource, tuple[str, ...]]":
    folder = Path(str(order.task["folder"]))
    if order.task["is_lake"]:
        if not folder.is_dir():
            raise UsageError("There is no such folder.", remedy="Name a folder that micromegas serve has written to.")
        from micromegas_jupyter.lakehouse import Lake

        return Lake(folder), ()
    from micromegas_jupyter.lakehouse import ParquetFolder

    parquet = ParquetFolder(folder)
    if not parquet.snapshot():
        found = f" {parquet.problems[0]}" if parquet.problems else ""
        raise UsageError(f"The folder holds no Parquet file that can be read.{found}", remedy=_NEEDED)
    return parquet, parquet.problems
