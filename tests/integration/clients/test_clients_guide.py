"""The examples of docs/clients.md run."""

import pytest

from tests.integration.clients.guide_examples import EXAMPLES

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: block.place)
def test_an_example_runs(server, example):
    code = compile(example.text, example.place, "exec")

    exec(code, {"uri": server.uri, "token": server.tokens["reader"]})
