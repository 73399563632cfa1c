"""`%micromegas_doctor`: what a sign-in needs, checked from where this notebook's kernel runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.notebook.arguments import answers_help, parse_words
from micromegas_jupyter.notebook.formatting import errors_as_lines
from micromegas_jupyter.notebook.shell import argument, line_magic, no_var_expand, with_arguments

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.session import NotebookSession


@magics_class
class DoctorMagic(Magics):
    """The magic that looks for what is wrong."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session

    @answers_help
    @no_var_expand
    @with_arguments()
    @argument("--profile", metavar="NAME", help="a profile of config.json; without it the one in use")
    @argument("--json", action="store_true", help="print one JSON object, for programs")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_doctor(self, line: str) -> None:
        """Check everything that a sign-in needs, one check a line, and say what to do where one fails."""
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_doctor, line)
            from micromegas_jupyter import doctor
            from micromegas_jupyter.auth.surroundings import gather_facts

            findings = doctor.examine(
                load_settings=lambda: self._session.settings(arguments.profile),
                facts=gather_facts(shell=self._shell),
            )
            text = (
                doctor.findings_as_json(findings) if arguments.json else "\n".join(doctor.findings_as_lines(findings))
            )
            print(text)  # noqa: T201 - the magic's output
