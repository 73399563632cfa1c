"""Signs in, works and signs out in every way that there is, and gathers what that left in every place.

What counts as a secret is noted by the providers; whether one is where it must not be is the test's to say.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from jupyter_client.manager import KernelManager

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.hub_service import HUB_TOKEN, FakeHubService, HubReply
from tests.fakes.terminal import ProgramAtTerminal, make_browser
from tests.integration.notebook.kernels import AttendedKernel, card_address, card_views
from tests.integration.system.escapes.gathering import file_texts, noted_texts, server_objects, telemetry_texts
from tests.integration.system.escapes.secrets_in_play import Kind, Place, Text

INSIDE = Path(__file__).parent / "inside"
REPOSITORY = Path(__file__).parents[4]
CLI = [sys.executable, "-m", "micromegas_jupyter.cli"]
COMMAND_SECONDS = 120
API_KEY = "an-api-key-for-this-run-only-0123456789"

_START_ADDRESS = re.compile(r"/start/([\w-]{20,})")


class RunOfEverything:
    """One person's day on one machine."""

    def __init__(self, folder, stack, secrets, processes):
        self.stack = stack
        self.secrets = secrets
        self.texts = []
        self.folder = folder
        self._processes = processes
        for name in ("given", "home", "notes", "tmp", "work"):
            (folder / name).mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{INSIDE}{os.pathsep}{REPOSITORY}",
            "PYTHONUTF8": "1",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "ESCAPES_FOLDER": str(folder / "notes"),
            "TERM": "xterm-256color",
            "COLUMNS": "400",
            "BROWSER": make_browser(folder / "my-browser"),
            **stack.client_environment(),
            "MICROMEGAS_CONFIG_DIR": str(folder / "config"),
        }

    @property
    def work(self):
        return str(self.folder / "work")

    def look(self):
        self._processes.look()

    def add(self, place, name, text):
        self.texts.append(Text(place=place, name=name, text=text))

    def command(self, *arguments, expect=0, stdin=None, **environ):
        self.program([*CLI, *arguments], " ".join(arguments[:1]), expect=expect, stdin=stdin, **environ)

    def program(self, command, name, *, expect=0, stdin=None, **environ):
        result = subprocess.run(
            command, env={**self.environ, **environ}, cwd=self.work, input=stdin, capture_output=True, text=True,
            check=False, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        assert result.returncode == expect, f"{name}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        self.add(Place.OUTPUT, name, result.stdout + result.stderr)

    def with_confidential_application(self, application, secret):
        environ = {**self.environ, **application, "MICROMEGAS_OIDC_CLIENT_SECRET": secret}
        self.login_by_browser(environ)
        self.command("logout", **application, MICROMEGAS_OIDC_CLIENT_SECRET=secret)

    def login_by_browser(self, environ):
        terminal = ProgramAtTerminal([*CLI, "login", "--flow", "browser"], environ=environ, folder=self.work)
        terminal.wait_for("Signed in as")
        self.add(Place.OUTPUT, "login by browser", terminal.finish())

    def at_terminal(self):
        self.login_by_browser(self.environ)
        for arguments in (["whoami"], ["doctor"], ["doctor", "--json"], ["query", "SELECT 1 AS one"], ["logout"]):
            self.command(*arguments, GRPC_VERBOSITY="DEBUG")
        keyring = {
            "MICROMEGAS_TOKEN_STORAGE": "keyring",
            "PYTHON_KEYRING_BACKEND": "persons_keyring.FileKeyring",
            "PERSONS_KEYRING": str(self.folder / "persons-keyring.json"),
        }
        command = [*CLI, "login", "--flow", "device"]
        terminal = ProgramAtTerminal(command, environ={**self.environ, **keyring}, folder=self.work)
        address, code = terminal.wait_for(r"Go to (\S+) and type (\S+)\.").groups()
        sign_in(f"{address}?user_code={code}")
        self.add(Place.OUTPUT, "login by device", terminal.finish())
        self.command("whoami", **keyring)
        self.command("logout", "--end-session", **keyring)
        shown = sign_in_by_paste([*CLI, "login", "--flow", "paste"], environ=self.environ, folder=self.work)
        self.add(Place.OUTPUT, "login by paste", shown)

    def with_service_account(self):
        account = self.stack.service_environment()
        wrong = "a-secret-that-is-wrong-0123456789"
        self.secrets.note(Kind.CLIENT_SECRET, wrong)
        account["MICROMEGAS_CONFIG_DIR"] = self.environ["MICROMEGAS_CONFIG_DIR"]
        in_file = {**account, "MICROMEGAS_OIDC_CLIENT_SECRET_FILE": self.give("secret", self.service_secret)}
        del in_file["MICROMEGAS_OIDC_CLIENT_SECRET"]
        self.command("query", "SELECT 1 AS one", **account)
        self.command("whoami", **in_file)
        refused = {**account, "MICROMEGAS_OIDC_CLIENT_SECRET": wrong}
        self.command("query", "SELECT 1 AS one", expect=3, **refused)
        self.command("doctor", expect=3, **refused)
        self.command("login", expect=3, **account)
        self.command("whoami", expect=2, **{**account, "MICROMEGAS_OIDC_ISSUER": "http://id.example"})
        proxy_password = "a-password-for-the-proxy-0123456789"
        self.secrets.note(Kind.CLIENT_SECRET, proxy_password)
        for proxy in (f"ftp://me:{proxy_password}@proxy.example", f"http://me:{proxy_password}@127.0.0.1:1"):
            is_malformed = proxy.startswith("ftp")
            self.command("whoami", expect=2 if is_malformed else 0, **{**account, "MICROMEGAS_OIDC_PROXY": proxy})

    def with_api_key(self):
        self.secrets.note(Kind.API_KEY, API_KEY)
        keys = json.dumps([{"name": "robot", "key": API_KEY}])
        errors = self.folder / "notes" / "serve.err"
        with errors.open("w") as sink:
            server = subprocess.Popen(
                [*CLI, "serve", "--port", "0", "--ready-json", "--lake", str(self.folder / "lake")],
                env={**self.environ, "MICROMEGAS_API_KEYS": keys}, cwd=self.work, stdout=subprocess.PIPE, stderr=sink,
                text=True,
            )  # fmt: skip
        try:
            uri = json.loads(server.stdout.readline())["uri"]
            wrong = f"{API_KEY}-wrong"
            profiles = {
                name: {"uri": uri, "api_key_file": self.give(f"{name}.key", key)}
                for name, key in (("robot", API_KEY), ("stranger", wrong))
            }
            config = self.folder / "config" / "config.json"
            config.write_text(json.dumps({"profiles": profiles}))
            own = {name: "" for name in self.environ if name.startswith("MICROMEGAS_O") or name.endswith("_URI")}
            self.command("query", "SELECT 1", "--profile", "robot", **own)
            self.command("whoami", "--profile", "stranger", expect=3, **own)
            config.unlink()
        finally:
            server.terminate()
            rest, _ = server.communicate(timeout=COMMAND_SECONDS)
        self.add(Place.OUTPUT, "serve", rest + errors.read_text())

    def in_library(self, told):
        program = str(Path(__file__).parent / "library_program.py")
        told = {**told, "person": self.environ, "pickles": str(self.folder / "pickles")}
        self.program([sys.executable, program], "library program", stdin=json.dumps(told))

    def in_shells(self):
        ipython = [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"]
        lines = ["%load_ext micromegas_jupyter", "%micromegas_login --flow paste"]
        shown = sign_in_by_paste(ipython, environ=self.environ, folder=self.work, lines=lines, prompt=r"In \[\d+\]: ")
        self.add(Place.OUTPUT, "IPython, paste", shown)
        lines = [
            "import os, sys; from micromegas_jupyter.wiring import client_side, sign_in as signing_in",
            "from micromegas_jupyter.config.client import Flow",
            "from micromegas_jupyter.cli.sign_in_commands import SignInTerminal as T",
            "t = T(sys.stderr, environ=os.environ); s = client_side.load_client_settings()",
            "p = signing_in.login(s, flow=Flow.PASTE, announce=t.announce, prompt=t.prompt); print('Signed in as', p)",
        ]
        shown = sign_in_by_paste(
            [sys.executable, "-i", "-q"], environ=self.environ, folder=self.work, lines=lines, prompt=">>> "
        )
        self.add(Place.OUTPUT, "Python, paste", shown)
        self.command("logout")

    def in_notebook(self):
        self.command("logout")
        self.in_kernel(self._run_cells)

    def in_kernel(self, work, **environ):
        manager = KernelManager(kernel_name="python3")
        with (self.folder / "notes" / "kernel.out").open("w+") as output:
            manager.start_kernel(env={**self.environ, **environ}, cwd=self.work, stdout=output, stderr=output)
            kernel = AttendedKernel(manager)
            try:
                work(kernel)
                self.add(Place.NOTEBOOK, "saved", kernel.saved())
                kernel.shut_down()
                self.add(Place.NOTEBOOK, "messages", str(kernel.all_messages))
            finally:
                kernel.close()
                manager.shutdown_kernel(now=True)
                manager.cleanup_resources()
            output.seek(0)
            self.add(Place.OUTPUT, "kernel", output.read())

    def _run_cells(self, kernel):
        def start_url():
            return card_address(kernel.all_messages)

        def run(source, *, fails=False, **options):
            cell = kernel.run(source, **options)
            assert cell.reply["status"] == ("error" if fails else "ok"), cell.messages

        run("%load_ext micromegas_jupyter")
        run("%micromegas_login --flow browser")
        sign_in(start_url())
        run("%sql rows << SELECT 1 AS one")
        run("%sql SELECT 1 AS one")
        assert '"columns"' in kernel.saved()  # a grid's state is in the notebook, too
        run("%micromegas_whoami")
        run("%micromegas_doctor")
        run("from micromegas_jupyter import connect; from micromegas_jupyter.wiring import client_side")
        run("own = client_side.stored_provider(client_side.load_client_settings())")
        run("own.invalidate(own.get_token())\nlen(own.get_token())")
        run("[own, own.identity(), get_ipython().user_ns]")
        run("%sql SELECT tagret FROM log_entries", fails=True)
        run("%xmode Verbose")
        run("connect('grpc://127.0.0.1:1').query('SELECT 1')", fails=True)
        run("connect().query('SELECT tagret')", fails=True)
        run("%micromegas_logout")
        run("%micromegas_login --flow device")
        sign_in(f"{start_url()}?user_code={card_views(kernel.all_messages)[-1]['code']}")
        run("%sql rows << SELECT 1 AS one")
        run("%micromegas_logout")
        wrong = "http://127.0.0.1:1/callback?code=one&state=two"
        answers = iter([lambda: wrong, lambda: sign_in(start_url(), visit_callback=False)])
        run("%micromegas_login --flow paste", answer=lambda _: next(answers)())
        run("%sql rows << SELECT 1 AS one")
        run("%micromegas_logout --end-session")
        kernel.later_messages(0.5)

    @property
    def service_secret(self):
        return self.stack.provider.service_secret.reveal()

    def give(self, name, content):
        path = self.folder / "given" / name
        path.touch(0o600)
        path.write_text(content)
        return str(path)

    def gather(self):
        """Add what was left behind; after this, nothing more is done."""
        self.texts += noted_texts(self.folder / "notes")
        self.texts += file_texts(self.folder, leave_out=[self.folder / "notes"])
        self.texts += telemetry_texts(self.stack)
        self.texts += server_objects()
        self.texts += self._processes.texts()
        for text in self.texts:
            for start in _START_ADDRESS.findall(text.text):
                self.secrets.note(Kind.START_ADDRESS, start)


def sign_in_by_paste(command, *, environ, folder, lines=(), prompt=""):
    """Open the address that a program shows, and type the one at which that ends; returns all that was shown."""
    terminal = ProgramAtTerminal(command, environ=environ, folder=folder)
    for line in lines:
        terminal.wait_for(prompt)
        terminal.type(f"{line}\r")
    address = terminal.wait_for(r"[Oo]pen (http://\S+/authorize\S+)")[1]
    end = sign_in(address, visit_callback=False)
    terminal.wait_for("Paste the address")
    terminal.type(f"{end.replace('state=', 'state=x')}\r")
    terminal.wait_for("isn't the URL")
    terminal.wait_for("Paste the address")
    terminal.type(f"{end}\r")
    terminal.wait_for("Signed in as")
    if lines:
        terminal.wait_for(prompt)
        terminal.type("exit()\r")
    return terminal.finish()


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
