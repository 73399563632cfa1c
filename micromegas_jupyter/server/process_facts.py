"""What is known of this process and its machine: the attributes of its row in `processes`.

Reading them never fails; what a system does not tell is empty.
"""

import contextlib
import getpass
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil

from micromegas_jupyter.telemetry import ProcessInfo, bound_text, nanoseconds_since_epoch

MAX_ATTRIBUTE_BYTES = 255
MAX_PROPERTY_BYTES = 1024
_MAX_PROPERTIES = 64
_CPU_INFO = Path("/proc/cpuinfo")
_MAX_CPU_INFO_BYTES = 64 * 1024


def describe_process(
    process_id: str, *, exe: str, insert_time_ns: int, properties: Mapping[str, str] | None = None
) -> ProcessInfo:
    """Return the attributes of this process, each bounded in length.

    Args:
        process_id: UUID text, new for each run.
        exe: The program's name for people.
        insert_time_ns: Now, nanoseconds since 1970 UTC; also the start time where the system does not tell it.
        properties: Anything else worth knowing.
    """
    username = _username()
    given = list((properties or {}).items())[:_MAX_PROPERTIES]
    return ProcessInfo(
        process_id=process_id,
        exe=_bounded(exe),
        username=_bounded(username),
        realname=_bounded(_realname() or username),
        computer=_bounded(platform.node()),
        distro=_bounded(_distro()),
        cpu_brand=_bounded(_cpu_brand()),
        start_time_ns=_start_time_ns() or insert_time_ns,
        insert_time_ns=insert_time_ns,
        properties={
            "process.pid": str(os.getpid()),
            "python.version": platform.python_version(),
            **{_bounded(name): bound_text(value, max_bytes=MAX_PROPERTY_BYTES) for name, value in given},
        },
    )


def _bounded(text: str) -> str:
    return bound_text(text, max_bytes=MAX_ATTRIBUTE_BYTES)


def _username() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container's arbitrary user id has no name.
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _realname() -> str:
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        # The first field of the comment is the name; office and telephone follow.
        return pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0]
    return ""


def _distro() -> str:
    with contextlib.suppress(OSError):
        name = platform.freedesktop_os_release().get("PRETTY_NAME")
        if name is not None:
            return name
    return f"{platform.system()} {platform.release()}"


def _cpu_brand() -> str:
    with contextlib.suppress(OSError), _CPU_INFO.open(encoding="utf-8", errors="replace") as stream:
        for line in stream.read(_MAX_CPU_INFO_BYTES).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _start_time_ns() -> int | None:
    try:
        return nanoseconds_since_epoch(psutil.Process().create_time())
    except psutil.Error:
        return None
