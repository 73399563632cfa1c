"""`micromegas lake status` shows the state of a lake."""

import argparse
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, duration_text
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from micromegas_jupyter.lake.maintenance import LakeStatus

_HEADERS: Final = ("table", "size", "files", "small", "commits", "lag", "problem")
_UNIT: Final = 1024


def add_lake_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "show the state of each table and the latest maintenance round"
    status = actions.add_parser("status", help=text, description=f"{text[0].upper()}{text[1:]}.")
    status.add_argument("lake", metavar="LAKE", help="directory of the lake, or s3://bucket/prefix")
    status.add_argument("--json", action="store_true", help="print a JSON object")


def run_lake(arguments: argparse.Namespace) -> int:
    """Print the status of the lake."""
    import msgspec

    from micromegas_jupyter.lake.maintenance import read_status

    status = read_status(Storage(arguments.lake))
    if status is None:
        raise UsageError(
            "Maintenance hasn't run here yet.", remedy="Check the address; a running server begins within a minute."
        )
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
        return 0
    from tabulate import tabulate

    rows = [
        [
            name,
            _size_text(table.bytes),
            f"{table.files:,}",
            f"{table.small_files:,}",
            f"{table.commits:,}",
            f"{table.lag_seconds:,.0f} s" if table.lag_seconds else "-",
            table.error or "",
        ]
        for name, table in sorted(status.tables.items())
    ]
    right = ("left", *["right"] * (len(_HEADERS) - 2), "left")
    print(tabulate(rows, headers=_HEADERS, tablefmt="simple", disable_numparse=True, colalign=right if rows else None))
    print(f"\n{_summary(status)}")
    return 0


def _summary(status: "LakeStatus") -> str:
    age = duration_text(SYSTEM_CLOCK.now() - status.finished_at)
    did = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in sorted(status.done.items())) or "no work"
    lines = [f"last round {age} ago, {status.duration_seconds:.1f} s; {did}"]
    if status.free_bytes is not None:
        lines.append(f"free disk {_size_text(status.free_bytes)}")
    if status.last_error is not None:
        lines.append(f"last problem: {status.last_error}")
    return "\n".join(lines)


def _size_text(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _UNIT:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _UNIT
    return f"{size:.1f} TiB"
