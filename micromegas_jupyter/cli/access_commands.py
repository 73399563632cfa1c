"""`micromegas keys` manages API keys; `micromegas access explain` shows how a server would treat a token."""

import argparse
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.cli.main import (
    add_action,
    add_server_arguments,
    connect,
    options_named,
    print_json,
    print_table,
)
from micromegas_jupyter.config.access import READ_SCOPE, SCOPE_REMEDY, ApiKeySetting, is_scope
from micromegas_jupyter.config.decoding import parse_count
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, process_variables
from micromegas_jupyter.core.text import parse_time
from micromegas_jupyter.errors import PermissionDenied, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.access.api_keys import KeyFile
    from micromegas_jupyter.access.validator import Decision

_KEY_FILE_VARIABLE: Final = "MICROMEGAS_API_KEY_FILE"
_CONFIG_VARIABLE: Final = "MICROMEGAS_ACCESS_CONFIG"
_MAX_DAYS_VARIABLE: Final = "MICROMEGAS_API_KEY_MAX_DAYS"
_MAX_DAYS: Final = 36_500
_DEFAULT_DAYS: Final = 90
_NEVER: Final = "never"
_MAX_NAME_CHARACTERS: Final = 255
_MAX_TOKEN_BYTES: Final = 64 * 1024
_HEADERS: Final = ("name", "id", "scopes", "roles", "created", "expires", "revoked", "state")
_SIGNS: Final = {True: "✓", False: "✗", None: "·"}


def add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _add_action(actions, "create", "create a key and print it; it can't be shown again")
    create.add_argument("name", metavar="NAME", help="name of the user or program that will use the key")
    create.add_argument(
        "--scope",
        action="append",
        default=[],
        help="scope, repeatable: read, write, metrics, ingest, or ingest:TABLE; default: read",
    )
    create.add_argument("--role", action="append", default=[], help="role, repeatable; default: none")
    create.add_argument(
        "--expires",
        metavar="TIME",
        help=f"expiration: 90d, 12h, or 30m from now, RFC 3339, or never; default: {_DEFAULT_DAYS}d",
    )
    create.add_argument(
        "--owner",
        metavar="USER",
        help="owner, as issuer|subject; cutting off this user also disables the key",
    )
    listing = _add_action(actions, "list", "list the keys in the file, but not their values")
    listing.add_argument("--json", action="store_true", help="print a JSON array")
    revoke = _add_action(actions, "revoke", "revoke a key")
    revoke.add_argument("key", metavar="NAME|ID", help="name or ID; a name revokes all keys with that name")
    revoke.add_argument(
        "--at", metavar="TIME", help="revocation time: 14d, 12h, or 30m from now, or RFC 3339; default: now"
    )
    usage = _add_action(actions, "usage", "show who uses which key, according to the audit log (administrators only)")
    usage.add_argument(
        "--since",
        metavar="TIME",
        default="30d",
        help="start of the time range: RFC 3339, or 15m, 1h, 7d ago; default: %(default)s",
    )
    usage.add_argument("--json", action="store_true", help="print a JSON array")
    add_server_arguments(usage)


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = add_action(actions, name, summary)
    parser.add_argument("--file", help=f"key file; default: {_KEY_FILE_VARIABLE}")
    return parser


def run_keys(arguments: argparse.Namespace) -> int:
    """Run the action, and print a new key or the list to standard output."""
    path = arguments.file or os.environ.get(_KEY_FILE_VARIABLE)
    if arguments.action == "usage":
        return _show_usage(arguments, path)
    if not path:
        raise UsageError("No key file was specified.", remedy=f"Specify --file FILE, or set {_KEY_FILE_VARIABLE}.")
    from micromegas_jupyter.access.api_keys import KeyFile

    actions = {"create": _create_key, "list": _list_keys, "revoke": _revoke_keys}
    actions[arguments.action](arguments, KeyFile(path))
    return 0


def _create_key(arguments: argparse.Namespace, file: "KeyFile") -> None:
    from micromegas_jupyter.access.api_keys import key_id, key_state, make_api_key
    from micromegas_jupyter.cli.serve_command import count_of

    now = SYSTEM_CLOCK.now()
    name = arguments.name
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
        raise UsageError(f"NAME must be at most {_MAX_NAME_CHARACTERS} printable characters.")
    if not all(map(is_scope, arguments.scope)):
        raise UsageError("The value of --scope isn't a valid scope.", remedy=SCOPE_REMEDY)
    if arguments.owner is not None and not all(arguments.owner.partition("|")):
        raise UsageError("The value of --owner doesn't have the form issuer|subject.")
    expires_at = _choose_expiry(arguments.expires, now=now)
    made = make_api_key(
        name,
        randomness=SYSTEM_RANDOMNESS,
        now=now.replace(microsecond=0),
        scopes=frozenset(arguments.scope or {READ_SCOPE}),
        roles=arguments.role,
        expires_at=expires_at,
    )
    setting = replace(made.setting, owner=arguments.owner)
    same_name = 0

    def with_new_key(keys: tuple[ApiKeySetting, ...]) -> tuple[ApiKeySetting, ...]:
        nonlocal same_name
        same_name = sum(key.name == name and key_state(key, now=now) == "valid" for key in keys)
        return (*keys, setting)

    file.change(with_new_key, creates=True)
    # Print the key only after it is in the file, because a printed key must work.
    print(made.secret.reveal(), flush=True)
    end = f"valid until {format_time(expires_at)}" if expires_at else "with no end"
    scopes = ", ".join(sorted(made.setting.scopes))
    notes = [f"made key {key_id(made.setting)} of {name!r} for {scopes}, {end}; it is shown only now, and not stored"]
    if made.setting.roles:
        notes.append(
            f"it has {count_of(len(made.setting.roles), 'role')} ({', '.join(made.setting.roles)}): a role counts only "
            "where the server's configuration has it, and the server's log names one that is missing"
        )
    if same_name:
        notes.append(f"{count_of(same_name, 'other valid key')} of this name: revoke by id what is no longer needed")
    print("\n".join(notes), file=sys.stderr)


def _list_keys(arguments: argparse.Namespace, file: "KeyFile") -> None:
    from micromegas_jupyter.access.api_keys import key_id, key_state

    now = SYSTEM_CLOCK.now()
    listed = [
        {
            "name": key.name,
            "id": key_id(key),
            "scopes": sorted(key.scopes),
            "roles": list(key.roles),
            "created_at": format_time(key.created_at) or None,
            "expires_at": format_time(key.expires_at) or None,
            "revoked_at": format_time(key.revoked_at) or None,
            "state": key_state(key, now=now),
            "is_plain_text": key.key is not None,
        }
        for key in sorted(file.load(), key=lambda key: key.name)
    ]
    if arguments.json:
        print_json(listed)
        return
    rows = []
    for entry in listed:
        *cells, state, is_plain_text = entry.values()
        texts = [" ".join(cell) if isinstance(cell, list) else cell for cell in cells]
        rows.append([*texts, f"{state}, plain text" if is_plain_text else state])
    print_table(rows, _HEADERS)


def _revoke_keys(arguments: argparse.Namespace, file: "KeyFile") -> None:
    from micromegas_jupyter.access.api_keys import find_keys, key_id

    now = SYSTEM_CLOCK.now().replace(microsecond=0)
    ends_at = None if arguments.at is None else parse_expiry(arguments.at, now=now, option="--at")
    found: list[ApiKeySetting] = []

    def ended(key: ApiKeySetting) -> ApiKeySetting:
        if ends_at is None:
            return key if key.revoked_at is not None else replace(key, revoked_at=now)
        return replace(key, expires_at=ends_at if key.expires_at is None else min(key.expires_at, ends_at))

    def with_ends(keys: tuple[ApiKeySetting, ...]) -> tuple[ApiKeySetting, ...]:
        found[:] = find_keys(keys, arguments.key)
        return tuple(ended(key) if key in found else key for key in keys)

    file.change(with_ends)
    for key in found:
        done = "is revoked in the file" if ends_at is None else f"ends at {format_time(ended(key).expires_at)}"
        if key.revoked_at is not None:
            done = "was revoked in the file already"
        print(f"key {key_id(key)} of {key.name!r} {done}", file=sys.stderr)
    # Only the server knows how it interprets the file.
    print("a running server reads the file within a few seconds and logs the change", file=sys.stderr)


def _choose_expiry(text: str | None, *, now: datetime) -> datetime | None:
    """Return a new key's expiry within the configured maximum, or None if it doesn't expire."""
    setting = process_variables().get(_MAX_DAYS_VARIABLE)
    max_days = None if not setting else parse_count(setting, _MAX_DAYS_VARIABLE, minimum=1, maximum=_MAX_DAYS)
    if text is None:
        text = f"{min(_DEFAULT_DAYS, max_days or _DEFAULT_DAYS)}d"
    expires_at = None if text == _NEVER else parse_expiry(text, now=now)
    if max_days is not None and (expires_at is None or expires_at > now + timedelta(days=max_days)):
        raise UsageError(f"--expires exceeds {_MAX_DAYS_VARIABLE}.", remedy=f"Specify at most {max_days}d from now.")
    return expires_at


_USAGE_HEADERS: Final = ("name", "id", "calls", "last_used", "address", "client")
_USAGE_SQL: Final = """
WITH calls AS (
    SELECT time, jsonb_parse(msg) AS line FROM log_entries
    WHERE target IN ('flightsql_query_audit', 'micromegas_jupyter.audit') AND msg LIKE '%"issuer":"api_key"%'
)
SELECT jsonb_as_string(coalesce(jsonb_get(line, 'service_account_name'), jsonb_get(line, 'user'))) AS name,
    jsonb_as_string(jsonb_get(line, 'credential')) AS id, count(*) AS calls, max(time) AS last_used,
    last_value(jsonb_as_string(jsonb_get(line, 'client_ip')) ORDER BY time) AS address,
    last_value(jsonb_as_string(jsonb_get(line, 'client')) ORDER BY time) AS client
FROM calls GROUP BY 1, 2 ORDER BY last_used DESC, id
"""


def _show_usage(arguments: argparse.Namespace, path: str | None) -> int:
    """Print the used keys, most recently used first, and then the file's unused keys."""
    from micromegas_jupyter.access.api_keys import KeyFile, key_id

    now = SYSTEM_CLOCK.now()
    since = parse_time(arguments.since, now=now)
    with connect(arguments) as client:
        if not client.whoami().is_admin:
            raise PermissionDenied("Only administrators can read the audit log.", reason="not_administrator")
        used = client.query_arrow(_USAGE_SQL, since, now).to_pylist()
    known = {row["id"] for row in used}
    unused = [] if path is None else [key for key in KeyFile(path).load() if key_id(key) not in known]
    rows = [{**row, "last_used": format_time(row["last_used"])} for row in used]
    rows += [dict(zip(_USAGE_HEADERS, (key.name, key_id(key), 0, None, None, None), strict=True)) for key in unused]
    if arguments.json:
        print_json(rows)
    else:
        print_table(([row[name] for name in _USAGE_HEADERS] for row in rows), _USAGE_HEADERS)
    return 0


def parse_expiry(text: str, *, now: datetime, option: str = "--expires") -> datetime:
    """Parse a future time: RFC 3339 (UTC without an offset), or `90d`, `12h`, `30m`."""
    time = parse_time(text, now=now, is_future=True).astimezone(UTC)
    if time <= now:
        raise UsageError(f"{option} is not in the future.", remedy=f"Specify a later time, or omit {option}.")
    return time.replace(microsecond=0)


def format_time(time: datetime | None) -> str:
    """Return a time as RFC 3339 in UTC, or an empty string for None."""
    return "" if time is None else time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def add_access_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    explain = actions.add_parser(
        "explain",
        help="why a token is accepted or rejected",
        description="Explain step by step why a server with these settings accepts or rejects a token.",
    )
    explain.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="file that contains the token; default: standard input"
    )
    explain.add_argument("--json", action="store_true", help="print a JSON object")
    explain.add_argument("--access-config", metavar="PATH", help=f"access configuration; default: {_CONFIG_VARIABLE}")
    explain.add_argument("--api-key-file", metavar="PATH", help=f"key file; default: {_KEY_FILE_VARIABLE}")


def run_access(arguments: argparse.Namespace) -> int:
    """Explain a token; return the exit code of the outcome: 0 accepted, 3 rejected, 4 undecided."""
    token = _read_token(arguments.file)
    from micromegas_jupyter.access import validator_from_environment
    from micromegas_jupyter.access.explain import describe_outcome, explain_decision
    from micromegas_jupyter.access.validator import Accepted, Undecided, decide_safely

    given = {_CONFIG_VARIABLE: arguments.access_config, _KEY_FILE_VARIABLE: arguments.api_key_file}
    environ = process_variables({**os.environ, **{name: value for name, value in given.items() if value}})
    options = {_CONFIG_VARIABLE: "--access-config", _KEY_FILE_VARIABLE: "--api-key-file"}
    with options_named({variable: option for variable, option in options.items() if given[variable]}):
        validator = validator_from_environment(environ)
    try:
        decision = decide_safely(validator, token)
        steps = explain_decision(token, decision, settings=validator.settings, now=SYSTEM_CLOCK.now())
    finally:
        validator.close()
    outcome = describe_outcome(decision)
    if arguments.json:
        listed = [{"passed": step.is_passed, "step": step.title, "found": step.found} for step in steps]
        print(json.dumps({"outcome": outcome, "steps": listed, **_decision_facts(decision)}))
    else:
        for step in steps:
            print(f"{_SIGNS[step.is_passed]} {step.title:<10} {step.found}")
        print(f"{_SIGNS[isinstance(decision, Accepted)]} {outcome}")
    if isinstance(decision, Accepted):
        return 0
    return Unavailable.exit_code if isinstance(decision, Undecided) else Rejected.exit_code


def _decision_facts(decision: "Decision") -> dict[str, object]:
    context = getattr(decision, "context", None)
    if context is None:
        return {"accepted": False, "reason": decision.reason}
    return {
        "accepted": True,
        "reason": None,
        "issuer": context.issuer,
        "subject": context.subject,
        "is_admin": context.is_admin,
        "groups": list(context.groups),
        "roles": list(context.roles),
        "scopes": sorted(context.scopes),
        "max_scan_bytes": context.max_scan_bytes,
        "ingest": sorted(context.write_access.ingest | context.write_access.creates),
        "owns": sorted(context.write_access.owns),
    }


def _read_token(name: str) -> str:
    """Return the token from a file or standard input, without whitespace and without `Bearer`."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_MAX_TOKEN_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_MAX_TOKEN_BYTES + 1)
    except (OSError, ValueError) as error:
        # The message doesn't repeat the name, which could be a token.
        raise UsageError(
            "The file does not exist." if isinstance(error, FileNotFoundError) else "The file cannot be read.",
            remedy="Specify a file that contains only the token, or pipe it in; never put it on the command line.",
        ) from error
    try:
        token = content.decode("utf-8").strip().removeprefix("Bearer ").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or len(content) > _MAX_TOKEN_BYTES:
        raise UsageError("The input is not a token.", remedy="Enter only the token.")
    return token
