"""`micromegas tables`: list, describe, change, and drop the server's tables."""

import argparse
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.cli.main import add_action, add_server_arguments, connect, print_json, print_table
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import parse_time
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.client.table_answers import Undo

_FORMATS: Final = ("table", "json")
_DEFAULT_VERSIONS: Final = 20
_MAX_VERSIONS: Final = 1000


def add_tables_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_action(actions, "list", "list the tables that you can read or write to")
    _add_table_action(actions, "describe", "show a table's columns and, to its owner, its size")
    drop = _add_table_action(actions, "drop", "drop a table; can be undone for 24 hours")
    delete = _add_table_action(actions, "delete", "delete rows; can be undone for 24 hours")
    delete.add_argument(
        "--where", required=True, metavar="SQL", help="condition that selects the rows to delete, or true for all rows"
    )
    restore = _add_table_action(
        actions,
        "restore",
        "restore a table to an earlier state, even if it was dropped",
    )
    restore.add_argument(
        "--to",
        required=True,
        metavar="VERSION|TIME",
        help="version in the table's history, or time: RFC 3339 (by default in UTC), or 15m, 2h ago",
    )
    restore.add_argument("--dry-run", action="store_true", help="print the changes without making them")
    for changing in (drop, delete, restore):
        changing.add_argument("--yes", action="store_true", help="skip the confirmation; required without a terminal")
    setting = _add_table_action(actions, "set", "set how long changes can be undone, or who can read earlier versions")
    setting.add_argument(
        "setting",
        metavar="SETTING=VALUE",
        help="setting: undo-hours=N, 1 to 8760 (default: 24), or time-travel=owners|readers (default: owners)",
    )
    _add_table_action(actions, "optimize", "merge small files right away")
    history = _add_table_action(actions, "history", "list the latest commits")
    history.add_argument(
        "--limit",
        type=int,
        metavar="N",
        default=_DEFAULT_VERSIONS,
        help=f"maximum number of commits, 1 to {_MAX_VERSIONS}; default: %(default)s",
    )


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, summary)
    parser.add_argument("--format", choices=_FORMATS, default="table", help="output format; default: %(default)s")
    add_server_arguments(parser)
    return parser


def _add_table_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = _add_action(actions, name, summary)
    parser.add_argument("table", metavar="TABLE", help="table name")
    return parser


def run_tables(arguments: argparse.Namespace) -> int:
    """Run the action, and print its result to standard output."""
    if arguments.action == "history" and not 1 <= arguments.limit <= _MAX_VERSIONS:
        raise UsageError(f"--limit must be a number from 1 to {_MAX_VERSIONS}.")
    if arguments.action == "restore":
        from micromegas_jupyter.client.tables import is_version

        to = arguments.to
        arguments.to = int(to) if is_version(to) else parse_time(to, now=SYSTEM_CLOCK.now())
    if not _is_confirmed(arguments):
        print("nothing was changed", file=sys.stderr)
        return 1
    actions = {
        "list": _list,
        "describe": _describe,
        "drop": _drop,
        "delete": _delete,
        "restore": _restore,
        "set": _set,
        "optimize": _optimize,
        "history": _history,
    }
    with connect(arguments) as client:
        actions[arguments.action](client, arguments)
    return 0


def _is_confirmed(arguments: argparse.Namespace) -> bool:
    """Prompt to confirm a change that removes rows; without a terminal, `--yes` is required."""
    questions = {
        "drop": "Drop the table {} and all of its rows?",
        "delete": "Delete the rows of the table {} that meet the condition?",
        "restore": "Restore the table {}, and remove the rows that were stored after that time?",
    }
    question = questions.get(arguments.action)
    if question is None or arguments.yes or getattr(arguments, "dry_run", False):
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"`micromegas tables {arguments.action}` requires confirmation in a terminal.",
            remedy="Add --yes.",
        )
    from micromegas_jupyter.core.text import cell_text

    print(f"{question.format(cell_text(arguments.table))} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _list(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    tables = client.table_summaries()
    if arguments.format == "json":
        print_json([asdict(table) for table in tables])
        return
    rows = [(table.name, _word(table.is_owner), _word(table.may_ingest)) for table in tables]
    print_table(rows, ("name", "yours", "takes your rows"))


def _describe(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    table = client.describe_table(arguments.table)
    if arguments.format == "json":
        print_json({**asdict(table), "created_at": _time(table.created_at)})
        return
    print_table(
        [(column.name, column.type, _word(column.nullable)) for column in table.columns], ("column", "type", "nullable")
    )
    print()
    facts: dict[str, object] = {
        "partitioned by": ", ".join(table.partition_by) or None,
        "retention": None if table.retention_days is None else f"{table.retention_days} days",
        "undo": None if table.undo_hours is None else f"{table.undo_hours} hours",
        "time travel": table.time_travel,
        "rows": _count(table.row_count),
        "files": _count(table.files),
        "bytes": _count(table.size_bytes),
        "version": table.version,
        "created": _time(table.created_at),
        "yours": _word(table.is_owner),
    }
    print_table([(name, fact) for name, fact in facts.items() if fact is not None])


def _drop(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    undo = client.drop_table(arguments.table)
    _print_outcome(arguments, {"table": arguments.table, "dropped": True}, f"dropped {arguments.table}", undo)


def _delete(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    count = client.delete_rows(arguments.table, arguments.where)
    facts: dict[str, object] = {"table": arguments.table, "deleted_rows": count}
    _print_outcome(arguments, facts, f"deleted {count:,} rows", count.undo)


def _restore(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    done = client.restore_table(arguments.table, to=arguments.to, dry_run=arguments.dry_run)
    facts: dict[str, object] = {
        "table": arguments.table,
        "was_dropped": done.was_dropped,
        "restored_version": done.restored_version,
        "version": done.version,
        "added_files": done.added_files,
        "removed_files": done.removed_files,
        **({"missing_files": done.missing_files} if arguments.dry_run else {}),
    }
    sentence = (
        f"{'would restore' if arguments.dry_run else 'restored'} {arguments.table} to version {done.restored_version}"
    )
    if done.added_files or done.removed_files:
        sentence += f" (files added: {done.added_files:,}, removed: {done.removed_files:,})"
    elif not done.was_dropped and done.version == done.restored_version:
        sentence = f"{arguments.table} is already in its state of that time"
    if done.missing_files:
        sentence += f"\nnot possible, as files are missing: {', '.join(done.missing_files)}"
    _print_outcome(arguments, facts, sentence, done)


def _set(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    name, _, value = arguments.setting.partition("=")
    if name == "time-travel" and value in {"owners", "readers"}:
        client.set_time_travel(arguments.table, value)
        sentence = f"{value} of {arguments.table} may read its earlier versions"
        _print_outcome(arguments, {"table": arguments.table, "time_travel": value}, sentence)
        return
    if name != "undo-hours" or not (value.isascii() and value.isdecimal()):
        raise UsageError(
            "Tables don't have this setting.",
            remedy="Use undo-hours=N, for example undo-hours=72, or time-travel=owners|readers.",
        )
    client.set_undo_hours(arguments.table, int(value))
    sentence = f"changes of {arguments.table} can be undone for {int(value):,} hours"
    _print_outcome(arguments, {"table": arguments.table, "undo_hours": int(value)}, sentence)


def _optimize(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    done = client.optimize_table(arguments.table)
    _print_outcome(
        arguments,
        {"table": arguments.table, **asdict(done)},
        f"merged {done.removed_files:,} files into {done.added_files:,}",
    )


def _history(client: "FlightSQLClient", arguments: argparse.Namespace) -> None:
    versions = client.table_history(arguments.table, limit=arguments.limit)
    if arguments.format == "json":
        print_json([{**asdict(version), "committed_at": _time(version.committed_at)} for version in versions])
        return
    rows = [(one.version, _time(one.committed_at), one.operation, one.engine, one.metrics or None) for one in versions]
    print_table(rows, ("version", "time", "operation", "by", "metrics"))


def _print_outcome(
    arguments: argparse.Namespace, facts: dict[str, object], sentence: str, undo: "Undo | None" = None
) -> None:
    if arguments.format == "json":
        times = {} if undo is None else {"undo_to": _time(undo.undo_to), "undo_until": _time(undo.undo_until)}
        print_json({**facts, **times})
        return
    print(sentence)
    if undo is not None and undo.undo_to is not None and undo.undo_until is not None:
        from micromegas_jupyter.core.text import cell_text

        local = undo.undo_until.astimezone()
        print(
            f"can be undone until {local:%Y-%m-%d %H:%M:%S %Z} ({_utc(undo.undo_until)}):\n"
            f"  micromegas tables restore {cell_text(arguments.table)} --to {_utc(undo.undo_to)}"
        )


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _word(value: bool) -> str:  # noqa: FBT001 - a cell
    return "yes" if value else "no"


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
