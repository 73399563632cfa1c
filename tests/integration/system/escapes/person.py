"""What a person has and does outside the programs: files with secrets of theirs, a browser, typing."""

import sys

from micromegas_jupyter.demo.provider.scripted_person import sign_in
from tests.fakes.terminal import ProgramAtTerminal

_BROWSER = """#!{python} -I
import sys
from micromegas_jupyter.demo.provider.scripted_person import sign_in
sign_in(sys.argv[1])
"""


def give(folder, name, content):
    path = folder / name
    path.touch(0o600)
    path.write_text(content)
    return str(path)


def browser(path):
    """Make a browser that signs in by itself; it is a program of the person's and is not watched from inside."""
    path.write_text(_BROWSER.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def sign_in_by_device(command, *, environ, folder):
    """Type the code that a program shows into the provider's page; returns all that the program showed."""
    terminal = ProgramAtTerminal(command, environ=environ, folder=folder)
    address, code = terminal.wait_for(r"Go to (\S+) and type (\S+)\.").groups()
    sign_in(f"{address}?user_code={code}")
    return terminal.finish()


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
    terminal.wait_for("not the address")
    terminal.wait_for("Paste the address")
    terminal.type(f"{end}\r")
    terminal.wait_for("Signed in as")
    if lines:
        terminal.wait_for(prompt)
        terminal.type("exit()\r")
    return terminal.finish()
