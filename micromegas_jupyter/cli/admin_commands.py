"""`micromegas queries`, `cancel`, and `admin`: running queries, table readers, and cutting off users."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.cli.access_commands import format_time, parse_expiry
from micromegas_jupyter.cli.main import add_action, add_server_arguments, connect, print_json, print_table
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import bytes_text, parse_time, seconds_text
from micromegas_jupyter.errors import MicromegasError, PermissionDenied, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.client.commands import CutOffUser
    from micromegas_jupyter.client.flight_client import FlightSQLClient

_ANY: Final = "*"
_MAX_QUERY_IDS: Final = 100
_MAX_SHOWN_IDS: Final = 3
_AUDIT: Final = "target = 'flightsql_query_audit'"
# Only the server's own recorder can set this property; a sender can store lines that merely look like audit lines.
_OWN: Final = "coalesce(property_get(process_properties, 'micromegas.origin') = 'server', false)"
_READS_SQL: Final = f"""
WITH lines AS (SELECT time, jsonb_parse(msg) AS line FROM log_entries WHERE {_AUDIT} AND {_OWN}),
found AS (
    SELECT time, line, jsonb_get(line, 'reads') AS reads FROM lines
)
SELECT jsonb_as_string(jsonb_get(line, 'user')) AS user, jsonb_as_string(jsonb_get(line, 'email')) AS email,
    jsonb_as_string(jsonb_get(line, 'issuer')) AS issuer,
    jsonb_as_string(jsonb_get(line, 'service_account_name')) AS service_account,
    jsonb_format_json(coalesce(jsonb_get(reads, $table), jsonb_get(reads, '*'))) AS columns,
    count(*) AS queries, sum(CASE WHEN jsonb_as_string(jsonb_get(line, 'status')) = 'ok' THEN 0 ELSE 1 END) AS failed,
    min(time) AS first, max(time) AS last,
    array_slice(array_agg(jsonb_as_string(jsonb_get(line, 'query_id')) ORDER BY time DESC), 1, {_MAX_QUERY_IDS}) AS ids
FROM found WHERE coalesce(jsonb_get(reads, $table), jsonb_get(reads, '*')) IS NOT NULL
GROUP BY 1, 2, 3, 4, 5
"""  # noqa: S608 - constants
_COVERAGE_SQL: Final = f"""
WITH lines AS (
    SELECT time, target, CASE WHEN {_OWN} THEN jsonb_get(jsonb_parse(msg), 'reads') END AS reads FROM log_entries
    WHERE {_AUDIT} OR (target = 'micromegas_jupyter.recorder' AND msg = 'telemetry was dropped')
)
SELECT sum(CASE WHEN {_AUDIT} AND reads IS NULL THEN 1 ELSE 0 END) AS unknown,
    min(CASE WHEN {_AUDIT} AND reads IS NOT NULL THEN time END) AS since,
    max(CASE WHEN {_AUDIT} AND reads IS NULL THEN time END) AS last_unknown,
    sum(CASE WHEN {_AUDIT} THEN 0 ELSE 1 END) AS dropped
FROM lines
"""  # noqa: S608 - constants
_USERS_SQL: Final = f"""
WITH lines AS (SELECT jsonb_parse(msg) AS line FROM log_entries
    WHERE target IN ('flightsql_query_audit', 'micromegas_jupyter.audit') AND {_OWN})
SELECT DISTINCT jsonb_as_string(jsonb_get(line, 'issuer')) AS issuer,
    jsonb_as_string(jsonb_get(line, 'user')) AS user, jsonb_as_string(jsonb_get(line, 'email')) AS email
FROM lines WHERE jsonb_as_string(jsonb_get(line, 'issuer')) NOT IN ('api_key', 'none')
    AND $name IN (jsonb_as_string(jsonb_get(line, 'user')), jsonb_as_string(jsonb_get(line, 'email')))
"""  # noqa: S608 - constants
_MAX_SQL: Final = 60
_NOT_RUNNING: Final = 1
_HEADERS: Final = ("user", "email", "queries", "failed", "first", "last", "columns", "query IDs")


def add_queries_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "--format", choices=("table", "json"), default="table", help="output format; default: %(default)s"
    )
    add_server_arguments(parser)


def run_queries(arguments: argparse.Namespace) -> int:
    """Print the running queries, oldest first."""
    with connect(arguments) as client:
        queries = client.running_queries()
    if arguments.format == "json":
        print(json.dumps([asdict(one) for one in queries], default=str, ensure_ascii=False, indent=2))
        return 0
    rows = [
        [
            one.query_id,
            one.email if one.email not in {"", "unknown"} else one.user,
            seconds_text(one.seconds) + ("" if one.is_running else ", waits"),
            bytes_text(one.peak_memory_bytes),
            " ".join(one.sql.split())[:_MAX_SQL],
        ]
        for one in queries
    ]
    print_table(rows, ("query", "user", "time", "memory", "SQL"))
    if not rows:
        print("no queries are running", file=sys.stderr)
    return 0


def add_cancel_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("query_id", metavar="ID", help="query ID from micromegas queries, an error, or the audit log")
    add_server_arguments(parser)


def run_cancel(arguments: argparse.Namespace) -> int:
    """Cancel the query; exit with code 1 if it isn't running."""
    with connect(arguments) as client:
        status = client.cancel_query(arguments.query_id)
    if status == "not_cancellable":
        print("You have no such query running on this server.", file=sys.stderr)
        return _NOT_RUNNING
    print("cancelled" if status == "cancelled" else "is being cancelled")
    return 0


def add_admin_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    reads = _add_action(actions, "who-read", "show who read a table or a column, according to the audit log")
    reads.add_argument("name", metavar="TABLE[.COLUMN]", help="table, view, or column")
    reads.add_argument(
        "--since",
        metavar="TIME",
        default="7d",
        help="start of the time range: RFC 3339, or 15m, 1h, 7d ago; default: %(default)s",
    )
    cut = _add_action(actions, "cut-off", "revoke or restore a user's access on all servers, or list cut-off users")
    cut.add_argument(
        "user",
        nargs="?",
        metavar="USER",
        help="user, as issuer|subject, api_key|NAME, or a subject or email in the audit log",
    )
    cut.add_argument("--until", metavar="TIME", help="when the cut-off ends: 90m, 12h, or 7d from now, or RFC 3339")
    cut.add_argument("--undo", action="store_true", help="restore the user's access")


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, summary)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_server_arguments(parser)
    return parser


def run_admin(arguments: argparse.Namespace) -> int:
    """Run the action."""
    if arguments.action == "cut-off" and arguments.undo and arguments.until:
        raise UsageError("--undo can't be combined with --until.")
    if arguments.action == "cut-off" and arguments.user is None and (arguments.undo or arguments.until):
        raise UsageError("No user was specified.", remedy="Write issuer|subject.")
    with connect(arguments) as client:
        if not client.whoami().is_admin:
            raise PermissionDenied("Only administrators can do this.", reason="not_administrator")
        if arguments.action == "who-read":
            return _show_readers(arguments, client)
        return _cut_off(arguments, client)


def _show_readers(arguments: argparse.Namespace, client: "FlightSQLClient") -> int:
    """Print one line per user, most recent reader first."""
    now = SYSTEM_CLOCK.now()
    since = parse_time(arguments.since, now=now)
    readers, coverage = find_readers(client, arguments.name, since=since, until=now)
    unknown, begin, dropped = coverage["unknown"] or 0, coverage["since"], coverage["dropped"] or 0
    if arguments.json:
        found = {
            "name": arguments.name,
            "since": format_time(since),
            "readers": [
                {**one, "first": format_time(one["first"]), "last": format_time(one["last"])} for one in readers
            ],
            "columns_known_since": format_time(begin) or None,
            "not_known": unknown,
            "has_lost_lines": bool(dropped),
        }
        print_json(found)
        return 0
    rows = [
        [
            one["user"] + (f" through {one['service_account']}" if one["service_account"] else ""),
            one["email"],
            one["queries"],
            one["failed"],
            format_time(one["first"]),
            format_time(one["last"]),
            ", ".join("any" if name == _ANY else name for name in one["columns"]),
            " ".join(one["query_ids"][:_MAX_SHOWN_IDS]) + (" …" if one["queries"] > _MAX_SHOWN_IDS else ""),
        ]
        for one in readers
    ]
    print_table(rows, _HEADERS)
    if begin is None:
        print("no audit line of this period lists columns", file=sys.stderr)
    else:
        print(f"audit lines list columns since {format_time(begin)}", file=sys.stderr)
    if unknown:
        last = format_time(coverage["last_unknown"])
        print(f"not known: {unknown} lines without columns, the last at {last}", file=sys.stderr)
    if dropped:
        print("not known: the server reported that it lost lines of its log in this period", file=sys.stderr)
    return 0


def find_readers(
    client: "FlightSQLClient", name: str, *, since: datetime, until: datetime
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return who read a table or column, and how many audit lines from the period do not list columns."""
    schema = "information_schema." if name.startswith("information_schema.") else ""
    table, _, column = name.removeprefix(schema).partition(".")
    if not table:
        raise UsageError("No table was specified.", remedy="Specify TABLE or TABLE.COLUMN.")
    groups = client.query_arrow(_READS_SQL, since, until, {"table": schema + table}).to_pylist()
    (coverage,) = client.query_arrow(_COVERAGE_SQL, since, until).to_pylist()
    return _merge_readers(groups, column=column or None), coverage


def _merge_readers(groups: Sequence[Mapping[str, Any]], *, column: str | None) -> list[dict[str, Any]]:
    """Return one entry per user who read the column, or any column if none is specified; most recent first."""
    readers: dict[tuple[object, ...], dict[str, Any]] = {}
    for group in groups:
        columns = json.loads(group["columns"])
        if column is not None and not {column, _ANY} & {*columns}:
            continue
        who = {name: group[name] or "" for name in ("user", "email", "issuer", "service_account")}
        one = readers.setdefault(
            tuple(who.values()),
            {
                **who,
                "queries": 0,
                "failed": 0,
                "first": group["first"],
                "last": group["last"],
                "columns": [],
                "ids": [],
            },
        )
        one["queries"] += group["queries"]
        one["failed"] += group["failed"]
        one["first"], one["last"] = min(one["first"], group["first"]), max(one["last"], group["last"])
        one["columns"] = sorted({*one["columns"], *columns})
        one["ids"].append((group["last"], group["ids"]))
    for one in readers.values():
        newest_first = sorted(one.pop("ids"), key=lambda found: found[0], reverse=True)
        one["query_ids"] = [query_id for _, ids in newest_first for query_id in ids][:_MAX_QUERY_IDS]
    return sorted(readers.values(), key=lambda one: one["last"], reverse=True)


def _cut_off(arguments: argparse.Namespace, client: "FlightSQLClient") -> int:
    now = SYSTEM_CLOCK.now()
    until = None if arguments.until is None else parse_expiry(arguments.until, now=now, option="--until")
    if arguments.user is None:
        _print_users(client.cut_off_users(), as_json=arguments.json)
        return 0
    if arguments.undo:
        issuer, subject = _find_cut_off(arguments.user, client.cut_off_users())
        client.restore_access(issuer, subject)
        print(f"restored the access of {issuer}|{subject}", file=sys.stderr)
        return 0
    issuer, subject, email = _find_user(arguments.user, client)
    reports = client.cut_off(issuer, subject, email=email, until=until)
    if arguments.json:
        print_json([{"server": one.server, "ended": one.ended, "query_ids": one.query_ids} for one in reports])
    for one in [] if arguments.json else reports:
        more = ", …" if one.ended > len(one.query_ids) else ""
        print(f"{one.server}: ended {one.ended}" + (f" ({', '.join(one.query_ids)}{more})" if one.ended else ""))
    end = "until it is restored with --undo" if until is None else f"until {format_time(until)}"
    print(f"{issuer}|{subject} has no access {end}", file=sys.stderr)
    print("a server that is not listed cannot read the file of denials, or did not report in time", file=sys.stderr)
    return 0


def _print_users(users: "Sequence[CutOffUser]", *, as_json: bool) -> None:
    rows = [
        {
            "user": f"{one.issuer}|{one.subject}",
            "email": one.email,
            "since": format_time(one.created_at),
            "until": format_time(one.until) or None,
            "by": one.created_by,
        }
        for one in users
    ]
    if as_json:
        print_json(rows)
    else:
        print_table((row.values() for row in rows), ("user", "email", "since", "until", "by"))


def _find_cut_off(user: str, users: "Sequence[CutOffUser]") -> tuple[str, str]:
    found = [
        (one.issuer, one.subject) for one in users if user in {f"{one.issuer}|{one.subject}", one.subject, one.email}
    ]
    if len(found) != 1:
        raise UsageError(
            "This user isn't cut off." if not found else "Several users match.",
            remedy="`micromegas admin cut-off` lists users who are cut off as issuer|subject.",
        )
    return found[0]


def _find_user(user: str, client: "FlightSQLClient") -> tuple[str, str, str | None]:
    """Return a user's issuer, subject, and email address; without an issuer, the user is looked up in the audit log."""
    issuer, bar, subject = user.partition("|")
    if bar and (not issuer or not subject):
        raise UsageError("USER does not have the form issuer|subject.")
    now = SYSTEM_CLOCK.now()
    name = subject if bar else user
    try:
        seen = client.query_arrow(_USERS_SQL, parse_time("30d", now=now), now, {"name": name}).to_pylist()
    except MicromegasError:
        if not bar:
            raise
        # Not every server stores its audit log in a table, and the user must be cut off anyway.
        print("the user's address is unknown: the audit cannot be read on this server", file=sys.stderr)
        seen = []
    found = [one for one in seen if not bar or one["issuer"] == issuer]
    identities = sorted({(one["issuer"], one["user"]) for one in found})
    if not bar and len(identities) != 1:
        listed = ", ".join("|".join(one) for one in identities)
        raise UsageError(
            f"The audit of the last 30 days has {'several users' if listed else 'no user'} of that name.",
            remedy=f"Use one of {listed}." if listed else "Use issuer|subject, as in the server's configuration.",
        )
    addresses = {one["email"] for one in found} - {None, "", "unknown"}
    email = addresses.pop() if len(addresses) == 1 else None
    return (issuer, subject, email) if bar else (*identities[0], email)
