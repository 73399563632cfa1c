"""The examples of docs/clients.md run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.architecture.guide_text import Block, dangling_links
from tests.integration.clients.guide_examples import EXAMPLES

if TYPE_CHECKING:
    from tests.integration.clients.serving import ClientServer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: block.place)
def test_an_example_runs(server: ClientServer, example: Block) -> None:
    code = compile(example.text, example.place, "exec")

    exec(code, {"uri": server.uri, "token": server.tokens["reader"]})


def test_its_links_lead_somewhere() -> None:
    assert dangling_links("clients.md") == []
