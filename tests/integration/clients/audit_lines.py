"""What the server's audit tells of one statement; lines of earlier tests' statements may still be coming."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def audit_lines(caplog: pytest.LogCaptureFixture, sql: str) -> list[dict[str, Any]]:
    """Return the lines about a statement that no other test runs."""
    lines = [json.loads(record.message) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    return [line for line in lines if line["sql"] == sql]
