"""`%xmode Verbose` shows the variables of each frame, and no token among them."""

from micromegas_jupyter.client.flight_client import FlightSQLClient

TOKEN = "sesame-open"


class TrailingNewline:
    """A provider that returns its token as a file of one line has it."""

    def get_token(self):
        return f"{TOKEN}\n"


def test_a_token_that_cannot_be_sent_is_not_shown(bare_shell, capsys):
    with FlightSQLClient("grpc://localhost:1", auth_provider=TrailingNewline()) as client:
        bare_shell.user_ns["client"] = client
        bare_shell.run_cell("%xmode Verbose")
        bare_shell.run_cell("client.query_arrow('SELECT 1')")

    shown = "".join(capsys.readouterr())
    assert "not a bearer token" in shown
    assert "transport.py" in shown
    assert TOKEN not in shown
