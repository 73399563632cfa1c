"""`micromegas admin`: whom a cut-off affects on a server without an audit in a table."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from micromegas_jupyter.cli import main
from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.wiring import client_side


class Client:
    """A client of a server that has no table `log_entries`, with a record of whose access was ended."""

    def __init__(self):
        self.cut_offs = []
        self.on_notice = lambda _: None

    def whoami(self):
        return SimpleNamespace(is_admin=True)

    def query_arrow(self, *_arguments):
        raise InvalidStatement("There is no table log_entries.")

    def cut_off(self, issuer, subject, **options):
        self.cut_offs.append((issuer, subject, options["email"]))
        return ()


@pytest.fixture
def client(monkeypatch):
    client = Client()
    monkeypatch.setattr(client_side, "connect", lambda _uri, profile: nullcontext(client))
    return client


def test_a_user_given_with_the_issuer_is_cut_off_although_the_audit_cannot_be_read(client, capsys):
    assert main.run(("admin", "cut-off", "https://id.example|alice")) == 0

    assert client.cut_offs == [("https://id.example", "alice", None)]
    assert "the user's address is unknown" in capsys.readouterr().err


def test_a_user_given_by_address_is_not_guessed(client, capsys):
    assert main.run(("admin", "cut-off", "alice@example.com")) != 0

    assert client.cut_offs == []
    assert "log_entries" in capsys.readouterr().err
