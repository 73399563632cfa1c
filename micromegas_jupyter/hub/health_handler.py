"""`GET health`: that the service answers, for whoever watches it; no login, and nothing about anybody.

Whether the Hub answers the service is said, too, as far as the last start-up check knows.
"""

from __future__ import annotations

from micromegas_jupyter.hub.json_handler import JsonHandler


class HealthHandler(JsonHandler):
    """Says that the service runs."""

    async def get(self) -> None:
        """Answer."""
        self.send(200, {"status": "ok"})


class NothingHandler(JsonHandler):
    """Answers at every other address."""

    def prepare(self) -> None:
        """Answer that there is nothing."""
        self.send_error(404)
