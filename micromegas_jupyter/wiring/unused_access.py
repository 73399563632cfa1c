"""What becomes of an access configuration beside `--disable-auth`: it is read, so that mistakes show, and not used."""

import logging
from collections.abc import Mapping
from typing import Final

from micromegas_jupyter.access.config import read_access_settings

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_VARIABLES: Final = (
    "MICROMEGAS_ACCESS_CONFIG",
    "MICROMEGAS_API_KEY_FILE",
    "MICROMEGAS_API_KEYS",
    "MICROMEGAS_OIDC_CONFIG",
    "MICROMEGAS_ADMINS",
)


def check_unused_access(environ: Mapping[str, str]) -> None:
    """Say in the log that what the variables name is not used; say nothing when they name nothing.

    Raises:
        ConfigurationError: It could not be used either: whoever named it is mistaken about this server.
    """
    named = [name for name in _VARIABLES if environ.get(name)]
    read_access_settings(environ)
    if named:
        _LOG.warning(
            "The access configuration is not used, because of --disable-auth.", extra={"settings": ", ".join(named)}
        )
