"""The memory limit that Linux control groups (containers, systemd units) set for this process."""

import sys
from pathlib import Path
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_MOUNT: Final = Path("/sys/fs/cgroup")
_MAX_FILE_BYTES: Final = 64 * 1024
_MAX_DEPTH: Final = 64
#: Version 1 reports at least this number if there is no limit.
_UNLIMITED_BYTES: Final = 1 << 60


def memory_limit_bytes(*, membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> int | None:
    """Return the lowest memory limit of this process's control groups, or None if no limit is known.

    A limit applies to all groups below it, so the parents' limits count. Source: the kernel's documentation,
    cgroup-v2 ("memory.max") and cgroup-v1 ("memory.limit_in_bytes").
    """
    if sys.platform != "linux":
        return None
    limits = []
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        group = root / path.lstrip("/")
        if ".." in group.parts:
            group = root  # a group outside the container's namespace
        for _ in range(_MAX_DEPTH):
            text = _read(group / name).strip()
            if text.isdigit() and int(text) < _UNLIMITED_BYTES:
                limits.append(int(text))
            if group == root:
                break
            group = group.parent
    return min(limits, default=None)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
