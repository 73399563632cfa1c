"""`GET micromegas/done`: waits for the kernel to exchange the code and says how the sign-in ended.

The address holds nothing; which sign-in it is about stands in a cookie of this browser.
"""

from __future__ import annotations

import asyncio

from jupyter_server.auth.decorator import allow_unauthenticated

from micromegas_jupyter.redirect import Page, notice_page
from micromegas_jupyter.redirect.cookies import ENDING_SECONDS, ending_name, parse_ending_value
from micromegas_jupyter.redirect.messages import Ended, EndingRequest, StillWorking
from micromegas_jupyter.redirect.pages import handed_over_page
from micromegas_jupyter.relay.base_handler import RelayHandler

MAX_WAITING_PAGES = 8
PAGE_WAIT_SECONDS = 45.0

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_SLOWER = 1.5
_STILL_WORKING = notice_page(status=200, what="The sign-in is still being completed. Reload this page in a moment.")


class DoneHandler(RelayHandler):
    """Shows the last page of a sign-in."""

    waiting_pages = 0

    @allow_unauthenticated  # nothing that a stranger could use is on it
    async def get(self, *_parts: str) -> None:
        """Show how the sign-in ended that this browser came back from."""
        if self.refuse_other_loads():
            return
        found = parse_ending_value(self.read_cookie(ending_name(self.cookie_place()), ENDING_SECONDS))
        if found is None or self.user is None:
            self.send_page(handed_over_page())
        elif DoneHandler.waiting_pages >= MAX_WAITING_PAGES:
            self.send_page(_STILL_WORKING)
        else:
            self.send_page(await self._ending_page(*found))

    async def _ending_page(self, kernel_id: str, state_digest: str) -> Page:
        DoneHandler.waiting_pages += 1
        try:
            async with asyncio.timeout(PAGE_WAIT_SECONDS):
                return await self._page_when_ended(kernel_id, state_digest)
        except TimeoutError:
            return _STILL_WORKING
        finally:
            DoneHandler.waiting_pages -= 1

    async def _page_when_ended(self, kernel_id: str, state_digest: str) -> Page:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            match await self.calls.ask(kernel_id, EndingRequest(state_digest=state_digest)):
                case Ended(ending=ending):
                    return ending.page()
                case StillWorking():
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(pause_seconds * _SLOWER, _LONGEST_PAUSE_SECONDS)
                case _:
                    return handed_over_page()
