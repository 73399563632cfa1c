"""Why a kernel gave no reply, in words for the person who waits for it; finding out is the callers' job."""

from __future__ import annotations

import enum


class Silence(enum.Enum):
    """What stands in place of a kernel's reply; each value says what happened."""

    NO_KERNEL = "The notebook's kernel is not running any more."
    NOT_LISTENING = "The notebook's kernel does not know this sign-in: it was restarted, or a newer one took its place."
    NO_REPLY = "The notebook's kernel did not answer in time."
    BUSY = "Too many sign-ins go on at this server at once."

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self is Silence.BUSY:
            return "Wait a moment and reload this page."
        return "Go back to the notebook and run %micromegas_login again."
