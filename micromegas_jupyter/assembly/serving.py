"""Opens the server that the options ask for: worker processes under a supervisor, or one in this process."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from micromegas_jupyter.assembly.unused_access import check_unused_access
from micromegas_jupyter.assembly.workers.port import is_port_shareable
from micromegas_jupyter.assembly.workers.process import PROGRAM
from micromegas_jupyter.seams import process_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.assembly.serve_options import ServeOptions
    from micromegas_jupyter.assembly.server_side import ServerStack
    from micromegas_jupyter.assembly.workers.stack import SupervisedStack

    RunningServer: TypeAlias = ServerStack | SupervisedStack

_LOG = logging.getLogger("micromegas_jupyter.supervisor")


def open_server(
    options: ServeOptions, *, environ: Mapping[str, str] | None = None, program: str = PROGRAM
) -> RunningServer:
    """Return a server that is not started.

    Args:
        options: How it runs.
        environ: The variables that it is configured by; the process's when left out.
        program: The module that a worker process runs.

    Raises:
        ConfigurationError: The options or the environment do not make a server that is safe to run.
    """
    from micromegas_jupyter.assembly.served_tables import check_served_folder

    check_served_folder(options.lake)  # before anybody makes the path absolute
    if options.disable_auth:
        check_unused_access(process_variables(environ))
    if options.workers and sys.platform == "win32":
        _LOG.warning("This system has no worker processes; calls are answered by the server's own process.")
        options = replace(options, workers=0)
    if options.workers > 1 and not is_port_shareable():
        _LOG.warning("On this system worker processes cannot share a port; there is one.")
        options = replace(options, workers=1)
    if not options.workers:
        from micromegas_jupyter.assembly.server_side import ServerStack

        return ServerStack(options, environ=environ)
    from micromegas_jupyter.assembly.workers.stack import SupervisedStack

    return SupervisedStack(options, environ=environ, program=program)
