"""`micromegas keys`: makes, lists and revokes the API keys in a key file."""

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.config.access import API_KEY_SCOPES, READ_SCOPE, ApiKeySetting
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.access.api_keys import KeyFile

KEY_FILE_VARIABLE: Final = "MICROMEGAS_API_KEY_FILE"

_MAX_NAME_CHARACTERS: Final = 255
_MAX_SHOWN_CHARACTERS: Final = 60
_FROM_NOW: Final = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_HEADERS: Final = ("name", "id", "scopes", "roles", "created", "expires", "revoked", "state")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _add_action(actions, "create", "make a key and print it, this one time")
    create.add_argument("name", metavar="NAME", help="the name that the bearer goes by")
    create.add_argument(
        "--scope", action="append", choices=sorted(API_KEY_SCOPES), help="what it is for, read by default; repeatable"
    )
    create.add_argument(
        "--role", action="append", default=[], help="a role of its bearer that the server has; repeatable"
    )
    create.add_argument("--expires", metavar="TIME", help="its end: 90d, 12h or 30m from now, or RFC 3339")
    listing = _add_action(actions, "list", "the keys in the file; never a key itself")
    listing.add_argument("--json", action="store_true", help="print a list of objects")
    revoke = _add_action(actions, "revoke", "mark a key in the file as revoked")
    revoke.add_argument("key", metavar="NAME|ID", help="all keys of that name, or the one with that id")


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.add_argument("--file", help=f"the key file, instead of the one that {KEY_FILE_VARIABLE} names")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the action; a new key or the list on standard output."""
    actions = {"create": _create, "list": _list, "revoke": _revoke}
    return actions[arguments.action](arguments, _key_file(arguments.file))


def _key_file(named: str | None) -> "KeyFile":
    path = named or os.environ.get(KEY_FILE_VARIABLE)
    if not path:
        raise UsageError("No key file is named.", remedy=f"Give --file FILE, or set {KEY_FILE_VARIABLE}.")
    from micromegas_jupyter.access.api_keys import KeyFile

    return KeyFile(path)


def _create(arguments: argparse.Namespace, file: "KeyFile") -> int:
    from micromegas_jupyter.access.api_keys import key_id, key_state, make_api_key

    now = SYSTEM_CLOCK.now()
    expires_at = None if arguments.expires is None else parse_expiry(arguments.expires, now=now)
    made = make_api_key(
        _checked_name(arguments.name),
        randomness=SYSTEM_RANDOMNESS,
        now=now.replace(microsecond=0),
        scopes=frozenset(arguments.scope or {READ_SCOPE}),
        roles=arguments.role,
        expires_at=expires_at,
    )
    namesakes = 0

    def with_new_key(keys: tuple[ApiKeySetting, ...]) -> tuple[ApiKeySetting, ...]:
        nonlocal namesakes
        namesakes = sum(key.name == made.setting.name and key_state(key, now=now) == "valid" for key in keys)
        return (*keys, made.setting)

    file.change(with_new_key, creates=True)
    # Only once it is in the file: a key that was printed works.
    print(made.secret.reveal(), flush=True)
    print(
        f"made key {key_id(made.setting)} of {arguments.name!r} for {', '.join(sorted(made.setting.scopes))}, "
        f"{'valid until ' + shown_time(expires_at) if expires_at else 'without an end'}; "
        "it is shown this one time and kept nowhere, only its digest is",
        file=sys.stderr,
    )
    if made.setting.roles:
        print(
            f"it has {_counted(len(made.setting.roles), 'role')} ({', '.join(made.setting.roles)}): a role counts only "
            "where the server's configuration has it, and the server's log names one that is missing",
            file=sys.stderr,
        )
    if namesakes == 1:
        print("1 other valid key of this name stays valid: revoke it by id", file=sys.stderr)
    elif namesakes:
        print(f"{namesakes} other valid keys of this name stay valid: revoke them by id", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace, file: "KeyFile") -> int:
    from micromegas_jupyter.access.api_keys import key_id, key_state

    now = SYSTEM_CLOCK.now()
    keys = sorted(file.load(), key=lambda key: key.name)
    if arguments.json:
        print(json.dumps([_described(key, now=now) for key in keys], ensure_ascii=False, indent=2))
        return 0
    from tabulate import tabulate

    from micromegas_jupyter.cli.output import cell_text

    rows = [
        (
            cell_text(key.name),
            key_id(key),
            " ".join(sorted(key.scopes)),
            cell_text(" ".join(key.roles)),
            shown_time(key.created_at),
            shown_time(key.expires_at),
            shown_time(key.revoked_at),
            key_state(key, now=now) + (", plain text" if key.key is not None else ""),
        )
        for key in keys
    ]
    print(tabulate(rows, headers=_HEADERS, tablefmt="simple", disable_numparse=True))
    return 0


def _revoke(arguments: argparse.Namespace, file: "KeyFile") -> int:
    from micromegas_jupyter.access.api_keys import find_keys, key_id

    now = SYSTEM_CLOCK.now().replace(microsecond=0)
    revoked: set[ApiKeySetting] = set()
    found: list[ApiKeySetting] = []

    def with_revocations(keys: tuple[ApiKeySetting, ...]) -> tuple[ApiKeySetting, ...]:
        found[:] = find_keys(keys, arguments.key)
        revoked.update(key for key in found if key.revoked_at is None)
        return tuple(replace(key, revoked_at=now) if key in revoked else key for key in keys)

    file.change(with_revocations)
    for key in found:
        done = "is revoked in the file" if key in revoked else "was revoked in the file already"
        print(f"key {key_id(key)} of {key.name!r} {done}", file=sys.stderr)
    # What a server makes of the file, only the server knows.
    print("a running server reads the file within a few seconds and says so in its log", file=sys.stderr)
    return 0


def parse_expiry(text: str, *, now: datetime) -> datetime:
    """Return the moment in the future that `text` names: RFC 3339 (UTC without an offset), or `90d`, `12h`, `30m`."""
    moment = None
    try:
        if from_now := _FROM_NOW.fullmatch(text):
            moment = (now + timedelta(**{_UNITS[from_now[2]]: int(from_now[1])})).replace(microsecond=0)
        else:
            moment = datetime.fromisoformat(text.upper())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise UsageError(
            f"{text[:_MAX_SHOWN_CHARACTERS]!r} is no time.",
            remedy="Use 90d, 12h or 30m from now, or RFC 3339 such as 2027-01-31T12:00:00Z.",
        )
    if moment <= now:
        raise UsageError("--expires is not in the future.", remedy="Give a later time, or leave --expires out.")
    return moment


def shown_time(moment: datetime | None) -> str:
    """Return a time as RFC 3339 in UTC, nothing for none."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _described(key: ApiKeySetting, *, now: datetime) -> dict[str, object]:
    from micromegas_jupyter.access.api_keys import key_id, key_state

    return {
        "name": key.name,
        "id": key_id(key),
        "scopes": sorted(key.scopes),
        "roles": list(key.roles),
        "created_at": shown_time(key.created_at) or None,
        "expires_at": shown_time(key.expires_at) or None,
        "revoked_at": shown_time(key.revoked_at) or None,
        "state": key_state(key, now=now),
        "is_plain_text": key.key is not None,
    }


def _checked_name(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME_CHARACTERS:
        raise UsageError(f"NAME is a text of at most {_MAX_NAME_CHARACTERS} printable characters.")
    return name
