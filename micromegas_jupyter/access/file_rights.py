"""Whose a file of the configuration may be, and who may change it.

Reading such files is left to others; so is what follows when one cannot be trusted.
"""

import logging
import os
import stat

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.errors import ConfigurationError


def find_rights_problem(found: os.stat_result, *, any_owner: bool = False) -> str | None:
    """Return what keeps a file from being trusted, as it goes on after the file's name; None when nothing does.

    Args:
        found: What the system says of the file.
        any_owner: Whether it may belong to somebody who is neither root nor this account.
    """
    if found.st_mode & stat.S_IWOTH:
        return "can be changed by every user of this machine"
    if not any_owner and found.st_uid not in {0, os.geteuid()}:
        return "belongs to another user"
    return None


def check_rights(found: os.stat_result, *, setting: str, any_owner: bool = False) -> None:
    """Check that a file that `setting` names can be trusted.

    Raises:
        ConfigurationError: It cannot.
    """
    problem = find_rights_problem(found, any_owner=any_owner)
    if problem is not None:
        remedy = "Let it belong to the account that the server runs as, or to root, and take the right to write from "
        raise ConfigurationError(
            f"The file that {setting} names {problem}.", key=setting, remedy=f"{remedy}others: chmod o-w."
        )


def warn_of_group(found: os.stat_result, *, setting: str) -> None:
    """Tell the log when the file's group may change it, which is allowed and seldom meant."""
    if found.st_mode & stat.S_IWGRP:
        record_event(
            logging.WARNING, "A file of the access configuration can be changed by its group.", setting=setting
        )
