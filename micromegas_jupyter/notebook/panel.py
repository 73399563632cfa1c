"""The kernel side of JupyterLab's side panel: tables, the query history, and queries running on the server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import bytes_text, cut, printable, rows_text, seconds_text, short_query_id
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.completion import fetch_schema, name_in_sql
from micromegas_jupyter.notebook.shell import shown_name, time_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.completion import SchemaCache
    from micromegas_jupyter.notebook.login.connections import Connection
    from micromegas_jupyter.notebook.login.session import CellConnections, NotebookSession
    from micromegas_jupyter.notebook.magics.sql import SqlMagic

TARGET: Final = "micromegas.panel"
"""The comm's target, and its ID. The kernel opens no comm in the page, so other front ends get no message.

A page lists the kernel's comms to find it. If the kernel is busy, which delays the list, the page sends to this ID.
"""

_MAX_SQL_CHARACTERS: Final = 2000
_log = logging.getLogger(__name__)


class SidePanel:
    """Replies to the side panels of all pages that show the notebook."""

    def __init__(
        self,
        shell: InteractiveShell,
        session: NotebookSession,
        connections: CellConnections,
        schemas: SchemaCache,
        sql_magic: SqlMagic,
    ) -> None:
        self._session, self._connections, self._schemas, self._sql_magic = session, connections, schemas, sql_magic
        self._comm: Any = None
        if getattr(shell, "kernel", None) is not None:
            import comm

            self._comm = comm.create_comm(target_name=TARGET, comm_id=TARGET, primary=False)
            comm.get_comm_manager().register_comm(self._comm)
            self._comm.on_msg(self._take_message)

    def close(self) -> None:
        """Close the comm."""
        if self._comm is not None:
            self._comm.close()

    def _take_message(self, message: Mapping[str, Any]) -> None:
        content = message["content"]["data"]
        if isinstance(content, dict) and isinstance(content.get("id"), int):
            # The kernel's own thread must remain available for other messages.
            start_thread(self._reply, content, name="micromegas-panel")

    def _reply(self, content: Mapping[str, Any]) -> None:
        try:
            reply = {"answer": self._answer(content)}
        except MicromegasError as error:
            reply = {"error": f"{printable(error.what)} {error.remedy}".strip()}
        except Exception as error:  # noqa: BLE001 - the page must receive a reply
            _log.error("The side panel could not reply.", extra={"kind": type(error).__name__})
            reply = {"error": "The kernel could not do that."}
        self._comm.send({"id": content["id"], **reply})
        # As with grids, ipykernel 7.4 would route the next message to this message's subshell, which may no longer
        # exist.
        self._comm.__dict__.pop("_reply_subshell_id", None)

    def _answer(self, content: Mapping[str, Any]) -> object:
        match content.get("op"):
            case "connections":
                return list(self._connections.all())
            case "tables":
                return self._tables(self._connection(content))
            case "history":
                return self._history()
            case "running":
                return self._running(self._connection(content))
            case _:
                return self._connection(content).client.cancel_query(str(content["query"]))

    def _connection(self, content: Mapping[str, Any]) -> Connection:
        """Return the connection that the user chose in the panel, or the one in use."""
        name = str(content.get("connection") or "") or None
        return self._session.connections.get(self._connections.settings(connection=name, profile=None))

    def _tables(self, connection: Connection) -> list[dict[str, object]]:
        schema = fetch_schema(connection.client)
        self._schemas.note(connection, schema)
        return [
            {
                "name": printable(table.name),
                "sql": name_in_sql(table.name),
                "remarks": table.remarks,
                "columns": [
                    {
                        "name": printable(column.name),
                        "sql": name_in_sql(column.name),
                        "type": column.type_text,
                        "remarks": column.remarks,
                    }
                    for column in table.columns
                ],
            }
            for table in schema.tables.values()
        ]

    def _history(self) -> dict[str, list[dict[str, str]]]:
        now = self._session.dependencies.clock.now()
        own = [
            {
                "head": f"{number} · {progress.ending or 'running'} · {rows_text(progress.rows)} · "
                f"{seconds_text(progress.seconds)} · {time_text(started_at, now=now)}",
                "sql": _shown_sql(request.sql),
                "cell": request.cell_text(),
            }
            for number, request, started_at, progress in reversed(list(self._sql_magic.history))
        ]
        kept = self._sql_magic.stored_history
        others = [] if kept is None else kept.others()
        return {"own": own, "others": [{"head": "", "sql": _shown_sql(sql), "cell": f"%%sql\n{sql}"} for sql in others]}

    def _running(self, connection: Connection) -> list[dict[str, object]]:
        return [
            {
                "query": one.query_id,
                "head": f"{short_query_id(one.query_id)} · "
                f"{shown_name(one.email if one.email not in {'', 'unknown'} else one.user)} · "
                f"{seconds_text(one.seconds)}{'' if one.is_running else ', waits'} · "
                f"{bytes_text(one.peak_memory_bytes)}",
                "sql": _shown_sql(one.sql),
            }
            for one in connection.client.running_queries()
        ]


def _shown_sql(sql: str) -> str:
    return cut("\n".join(printable(line) for line in sql.strip().splitlines()), _MAX_SQL_CHARACTERS)
