"""What a person does in a server of a JupyterHub, whose sign-in service notes what it gives."""

from tests.fakes.hub_service import HUB_TOKEN, FakeHubService, HubReply
from tests.integration.system.escapes.secrets_in_play import Kind

CELLS = (
    "%load_ext micromegas_jupyter",
    "%micromegas_login --flow hub",  # the person chose another way before
    "%micromegas_doctor",
    "from micromegas_jupyter import connect; from micromegas_jupyter.wiring import client_side",
    "own = client_side.stored_provider(client_side.load_client_settings())",
    "[len(own.get_token()), own, own.identity(), own.__dict__, get_ipython().user_ns]",
    "%xmode Verbose",
)
# The server does not know who made these tokens.
REFUSED_CELLS = ("%sql SELECT 1 AS one", "%micromegas_whoami --traceback", "connect().query('SELECT 1')")


def on_a_hub(done):
    """Be signed in by the Hub, be refused by the server and by the Hub, and sign out."""
    with FakeHubService() as hub:
        hub.issuer = done.stack.provider.issuer
        give = hub.token

        def noted():
            token = give()
            done.secrets.note(Kind.ACCESS_TOKEN, token)
            return token

        hub.token = noted
        hub.before_answer = done.look
        done.secrets.note(Kind.HUB_TOKEN, HUB_TOKEN)

        def malformed(call):
            body = hub.contract(call).body
            assert isinstance(body, dict)
            return HubReply(body={**body, "expires_in": "soon"})

        def work(kernel):
            def run(*sources, status="ok"):
                for source in sources:
                    cell = kernel.run(source)
                    assert cell.reply["status"] == status, cell.messages

            run(*CELLS)
            run(*REFUSED_CELLS, status="error")
            hub.reply = malformed
            run("own.renew()", status="error")
            hub.refuse(409, "sign_in_again")
            run("own.renew()", status="error")
            hub.reply = hub.contract
            run("%micromegas_logout")
            run("%sql SELECT 1 AS one", status="error")

        done.in_kernel(work, **hub.environ)
        done.command("login", **hub.environ)
        done.command("query", "SELECT 1 AS one", expect=3, GRPC_VERBOSITY="DEBUG", **hub.environ)
        done.command("whoami", expect=3, **hub.environ)
        done.command("logout", **hub.environ)
