"""The magics' interface to IPython: typed names, a magic's line and options, and text output of cells."""

import argparse
import functools
import html
import keyword
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

import IPython
import IPython.display
from IPython.core import completer, magic_arguments
from IPython.core import magic as ipython_magic
from IPython.core.error import UsageError as IPythonUsageError
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core import system
from micromegas_jupyter.core.text import cut, printable, short_query_id, statement_excerpt
from micromegas_jupyter.core.text import host_text as url_host
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, QueryCancelled, QueryError, UsageError

_Function = TypeVar("_Function", bound=Callable[..., object])
_Magics = TypeVar("_Magics")
_Value = TypeVar("_Value")
argument = cast("Callable[..., _Decorator]", magic_arguments.argument)
with_arguments = cast("Callable[[], _Decorator]", magic_arguments.magic_arguments)
completion_matcher = cast("Callable[..., _Decorator]", completer.completion_matcher)
needs_local_scope = cast("_Decorator", ipython_magic.needs_local_scope)
no_var_expand = cast("_Decorator", ipython_magic.no_var_expand)
_line_magic = cast("_Decorator", ipython_magic.line_magic)
line_cell_magic = cast("Callable[[str], _Decorator]", ipython_magic.line_cell_magic)
display = cast("Callable[..., None]", IPython.display.display)
clear_output = cast("Callable[..., None]", IPython.display.clear_output)
new_display_handle = cast("Callable[[], Handle]", IPython.display.DisplayHandle)
start_thread = system.start_thread

Bundle = tuple[dict[str, Any], dict[str, Any]]
"""A front end's display of a value, and its metadata, by MIME type."""

HELP_OPTION = "--help"
_VARIABLE_ARGUMENT = re.compile(r"(--[A-Za-z][\w-]*=)?(?:\{([^\W\d]\w*)\}|\$([^\W\d]\w*))")
_CELL_OF_ONE_LINE = re.compile(r"%%((?:micromegas_)?sql .*)\s*")


class _Decorator(Protocol):
    def __call__(self, _function: _Function, /) -> _Function: ...


class _Widget(Protocol):
    layout: Any

    def close(self) -> None: ...


_widgets_of_cells: dict[str, list[_Widget]] = {}


class Handle(Protocol):
    """A display that can be updated."""

    def display(self, shown: Any, *, raw: bool = False, metadata: Any = None) -> None:
        """Show the display for the first time."""

    def update(self, shown: Any, *, raw: bool = False, metadata: Any = None) -> None:
        """Replace the displayed content."""


def has_kernel(shell: InteractiveShell) -> bool:
    """Whether the shell runs in a Jupyter kernel, so that displays can be updated and widgets can be shown."""
    return getattr(shell, "kernel", None) is not None


def _request(shell: InteractiveShell, part: str = "content") -> Mapping[str, Any]:
    kernel = getattr(shell, "kernel", None)
    return {} if kernel is None else kernel.get_parent("shell").get(part, {})


def close_with_output(widget: _Widget) -> None:
    """Close a widget when its cell runs again or is deleted, because its output is then no longer in the page."""
    shell = IPython.get_ipython()
    cell = shell and _request(shell, "metadata").get("cellId")
    if isinstance(cell, str):
        _widgets_of_cells.setdefault(cell, []).append(widget)
        shell.events.register("pre_run_cell", _close_old_widgets)


def _close_old_widgets(_info: object) -> None:
    metadata = _request(IPython.get_ipython(), "metadata")
    for cell in (metadata.get("cellId"), *metadata.get("deletedCells", ())):
        for widget in _widgets_of_cells.pop(cell, ()):
            widget.layout.close()  # a widget, too
            widget.close()


def is_alone_in_cell(shell: InteractiveShell) -> bool:
    """Whether the running notebook cell is a single line, so that all of its output comes from that line."""
    lines = (line.strip() for line in _request(shell).get("code", "").splitlines())
    return sum(1 for line in lines if line and not line.startswith("#")) == 1


def is_attended(shell: InteractiveShell) -> bool:
    """Whether a user can respond: front ends set `allow_stdin` to true in each request; nbclient sets it to false."""
    return bool(_request(shell).get("allow_stdin", not has_kernel(shell)))


def show_once(shell: InteractiveShell, value: object, build_bundle: Callable[[], Bundle]) -> None:
    """Make the running cell show a bundle instead of the value's own, if the value is the cell's result."""
    formatter: Any = shell.display_formatter.mimebundle_formatter  # type: ignore[union-attr] # a running shell has one
    kind = type(value)
    others = formatter.type_printers.pop(kind, None)

    def show(shown: object, **options: object) -> Bundle | None:
        if shown is value:
            return build_bundle()
        return None if others is None else cast("Bundle | None", others(shown, **options))

    def forget(*_result: object) -> None:
        shell.events.unregister("post_run_cell", forget)
        formatter.pop(kind, None)
        if others is not None:
            formatter.for_type(kind, others)

    formatter.for_type(kind, show)
    shell.events.register("post_run_cell", forget)


def load_libraries(*names: str) -> None:
    """Import any unloaded modules on a separate thread; Ctrl-C returns immediately and lets the import finish."""
    missing = [name for name in names if name not in sys.modules]
    if missing:
        system.run_interruptibly(lambda: [import_module(name) for name in missing])


def parse_options(magic: Callable[..., Any], arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options as parsed by the `@with_arguments` parser."""
    known = option_names(magic)
    for option in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        # argparse also accepts abbreviated options.
        if not any(name.startswith(option) for name in known):
            nearest = get_close_matches(option, known, n=1)
            remedy = f"Did you mean {nearest[0]}?" if nearest else f"The options are {', '.join(known)}."
            raise UsageError(f"{shown_name(option)} is not an option.", remedy=remedy)
    try:
        return _parser(magic).parse_args(list(arguments))
    except IPythonUsageError as error:
        message = shown_name(str(error))
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", remedy=_usage_remedy(magic)) from None


def check_exclusive(arguments: argparse.Namespace, *options: str) -> None:
    """Check that at most one of these options is specified."""
    given = [name for name in options if getattr(arguments, name) is not None and getattr(arguments, name) is not False]
    if len(given) > 1:
        one, other = (f"--{name.replace('_', '-')}" for name in given[:2])
        raise UsageError(f"{one} and {other} cannot be combined.", remedy="Omit one of them.")


def option_names(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a magic's options."""
    return tuple(name for action in _actions(magic) for name in action.option_strings)


def options_with_value(magic: Callable[..., Any]) -> tuple[str, ...]:
    """Return a magic's options that require a value."""
    return tuple(name for action in _actions(magic) if action.nargs is None for name in action.option_strings)


def option_values(magic: Callable[..., Any], option: str) -> tuple[str, ...]:
    """Return the choices of a magic's option; empty if it takes any value."""
    return tuple(
        str(value) for action in _actions(magic) if option in action.option_strings for value in action.choices or ()
    )


def line_magic(method: Callable[[_Magics, argparse.Namespace], _Value]) -> Callable[[_Magics, str], _Value | None]:
    """Turn a method that takes the parsed options into a line magic with `--help` and errors without a traceback."""
    with_traceback = argument("--traceback", action="store_true", help="show the Python traceback of an error")
    magic = no_var_expand(with_arguments()(with_traceback(method)))

    @functools.wraps(magic)
    def run(magics: _Magics, line: str) -> _Value | None:
        if HELP_OPTION in line.split():
            print(help_text(magic))  # noqa: T201 - the magic's output
            return None
        with errors_as_lines(traceback="--traceback" in line.split()):
            try:
                arguments = shlex.split(line)
            except ValueError:
                raise UsageError("A quotation mark is missing.", remedy=_usage_remedy(magic)) from None
            variables = magics.shell.user_ns  # type: ignore[attr-defined] # of IPython's Magics
            return magic(magics, parse_options(magic, [_variable_value(each, variables) for each in arguments]))

    return _line_magic(run)


def _variable_value(argument: str, variables: Mapping[str, object]) -> str:
    """Replace `{name}` or `$name` with the variable's value if it is the whole argument or an option's whole value."""
    found = _VARIABLE_ARGUMENT.fullmatch(argument)
    if found is None:
        return argument
    name = found[2] or found[3]
    if name not in variables:
        raise UsageError(f'There is no variable named "{shown_name(name)}".', remedy="Assign it in an earlier cell.")
    value = variables[name]
    text = value.hex() if isinstance(value, bytes) else str(value)  # tables contain IDs as bytes
    return f"{found[1] or ''}{text}"


def help_text(magic: Callable[..., Any]) -> str:
    """Return a magic's description and options."""
    return _parser(magic).format_help().removeprefix("::\n\n").strip()


def _parser(magic: Callable[..., Any]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = magic.parser  # type: ignore[attr-defined] # set by @with_arguments
    return parser


def _actions(magic: Callable[..., Any]) -> Sequence[argparse.Action]:
    return _parser(magic)._actions  # noqa: SLF001 - argparse lists its options in no other way


def _usage_remedy(magic: Callable[..., Any]) -> str:
    shell = IPython.get_ipython()
    cells = {} if shell is None else shell.magics_manager.magics["cell"]
    # `%%sql` has two names, unless another extension uses the short one.
    names = [name for name, found in cells.items() if getattr(found, "__name__", "") == magic.__name__]
    return f"{f'%%{min(names, key=len)}' if names else f'%{magic.__name__}'}? lists the options."


_TEMPLATE: Final = "{{"
_VARIABLE: Final = re.compile(r"\s*([^\W\d]\w*)[ \t]*<<(?=\s|$)")
_OPTION: Final = re.compile(r"\s*(--[A-Za-z][\w-]*)(=|(?=\s|$))")
_VALUE: Final = re.compile(r"[ \t]*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"']\S*))(?=\s|$)")
OPTIONS: Final = re.compile(
    rf"(?:{_VARIABLE.pattern})?\s*(?:--[\w-]+(?:(?:=|[ \t]+)(?:\"[^\"]*\"|'[^']*'|[^\s\"'-]\S*))?\s+)*"
)
"""The start of a magic's line, before a cursor at an option or in the statement."""

_BEGINS_STATEMENT: Final = re.compile(r"SELECT|WITH|EXPLAIN|SHOW|DESCRIBE|VALUES|TABLE|[^\w{$]", re.IGNORECASE)
_LINE_MAGIC: Final = re.compile(r"\s*(?:[^\W\d][\w.\[\], ]*=\s*)?%(?P<name>\w+)[ \t]")
_CELL_MAGIC: Final = re.compile(r"\s*%%(?P<name>\w+)(?=[ \t\n])")


class SqlLine(NamedTuple):
    """A parsed line: the variable for the rows (None: the cell's value), the options, and the statement."""

    name: str | None
    options: argparse.Namespace
    sql: str


def parse_sql_line(
    magic: Callable[..., Any], line: str, cell: str | None, variables: Mapping[str, object] = MappingProxyType({})
) -> SqlLine:
    """Parse the magic's line and the body of a cell magic (None for a line magic).

    IPython must not expand variables in the line, because it can contain SQL. Values of options are expanded here,
    after the line is split, so each is always one argument.
    """
    variable = _VARIABLE.match(line)
    rest = line if variable is None else line[variable.end() :]
    # Normalizes names as Python does: `µs` typed with the micro sign becomes the Greek letter.
    name = None if variable is None else unicodedata.normalize("NFKC", variable[1])
    nargs = {option: action.nargs for action in _actions(magic) for option in action.option_strings}
    words = []
    while found := _OPTION.match(rest):
        option, rest = found[1], rest[found.end() :]
        value = _VALUE.match(rest) if found[2] or nargs.get(option, 0) != 0 else None
        # The statement may follow an option with an optional value.
        if value is None or (not found[2] and nargs[option] == "?" and _BEGINS_STATEMENT.match(value[0].strip())):
            words.append(option)
        else:
            text = next(group for group in value.groups() if group is not None)
            words.append(_variable_value(f"{option}={text}", variables))
            rest = rest[value.end() :]
    options, rest = parse_options(magic, words), rest.lstrip()
    if name is not None and (keyword.iskeyword(name) or not name.isidentifier()):
        raise UsageError(f'"{shown_name(name)}" is not a valid variable name.', remedy="Choose another name.")
    sql = rest if cell is None else f"{rest}\n{cell}" if rest else cell
    if not sql.strip():
        raise UsageError("The SQL statement is missing.", remedy="Write the statement after %sql, or below %%sql.")
    return SqlLine(name=name, options=options, sql=sql)


def option_value(value: str) -> str:
    """Return an option's value in the form that the magic reads.

    Raises:
        UsageError: It has a line break, or both kinds of quotes.
    """
    if "\n" in value or ("'" in value and '"' in value):
        raise UsageError("A name contains a line break, or both kinds of quotation marks.", remedy="Rename it with AS.")
    return f'"{value}"' if "'" in value else shlex.quote(value)


def check_no_template(sql: str) -> None:
    """Reject `{{…}}`, because a value that became part of the SQL could change its meaning."""
    position = sql.find(_TEMPLATE)
    if position >= 0:
        raise InvalidStatement(
            "{{…}} isn't supported here.",
            line=sql.count("\n", 0, position) + 1,
            column=position - (sql.rfind("\n", 0, position) + 1) + 1,
            remedy="Write :name for a value; for the name of a table or column build the statement in Python with "
            "quote_identifier(); bind text that holds two braces.",
        )


def find_magic(
    text: str, cursor: int, *, line_magics: Collection[str], cell_magics: Collection[str]
) -> tuple[str, str, bool] | None:
    """Return a magic's text before and after the cursor, and whether it is a cell magic; None outside these magics."""
    found = _CELL_MAGIC.match(text)
    if found is not None and found["name"] in cell_magics:
        return (text[found.end() : cursor], text[cursor:], True) if cursor > found.end() else None
    found = _LINE_MAGIC.match(text, text.rfind("\n", 0, cursor) + 1, cursor)
    if found is None or found["name"] not in line_magics:
        return None
    return text[found.end() : cursor], text[cursor:].partition("\n")[0], False


_MAX_NAME_CHARACTERS = 120
_MAX_SENTENCE_CHARACTERS = 2000


def count_text(count: int) -> str:
    """Return a count with separators: `1,842,113`."""
    return f"{count:,}"


def time_text(time: datetime, *, now: datetime) -> str:
    """Return a time in UTC, with its date if it is more than a day away: `15:42 UTC`."""
    return time.strftime("%H:%M UTC" if abs(time - now) < timedelta(hours=24) else "%Y-%m-%d %H:%M UTC")


def host_text(url: str) -> str:
    """Return a URL's host and port for display, with control characters escaped."""
    return printable(url_host(url))


def provider_text(issuer: str | None) -> str:
    """Return the host of the issuer that users sign in with; if none is set, only the Hub knows it."""
    return host_text(issuer) if issuer else "JupyterHub's identity provider"


def where_text(issuer: str, server: str) -> str:
    """Return which issuer and server a user is signed in to: ` at id.example.com (for lake.example.com:50051)`."""
    return (f" at {issuer}" if issuer else "") + f" (for {server})"


def sign_in_text(settings: ClientSettings) -> str:
    """Return the issuer and server that the settings use for sign-in, in the format of `where_text`."""
    return where_text(host_text(settings.issuer or ""), host_text(settings.uri))


def shown_name(text: str) -> str:
    """Return an untrusted name, made safe for display."""
    return cut(printable(text), _MAX_NAME_CHARACTERS)


@contextmanager
def errors_as_lines(*, sql: str | None = None, traceback: bool = False) -> Iterator[None]:
    """Make IPython show the package's errors as lines instead of a traceback; an interrupt becomes `QueryCancelled`.

    `line` and `column` of a `QueryError` refer to `sql`; with `traceback`, errors stay unchanged.
    """
    try:
        yield
    except MicromegasError as error:
        if not traceback and "_render_traceback_" not in vars(error):
            show_as_lines(error, error_lines(error, sql=sql))
            _offer_help(error, sql)
        raise
    except KeyboardInterrupt as interrupt:
        if traceback:
            raise
        stopped = QueryCancelled("Interrupted.")
        show_as_lines(stopped, ["✗ interrupted"])
        raise stopped from interrupt


def _offer_help(error: MicromegasError, sql: str | None) -> None:
    """Show an explanation below the error's lines if a user is present in the notebook."""
    shell = IPython.get_ipython()
    if not isinstance(error, QueryError) or isinstance(error, QueryCancelled) or shell is None:
        return
    cell = _request(shell).get("code", "")

    def show(result: Any) -> None:
        shell.events.unregister("post_run_cell", show)
        if result.error_in_exec is error:
            from micromegas_jupyter.notebook.error_help import ErrorHelp  # imports anywidget

            error_help = ErrorHelp(error, cell=cell, sql=sql)
            close_with_output(error_help)
            display(error_help)

    if has_kernel(shell) and is_attended(shell):
        shell.events.register("post_run_cell", show)


def show_as_lines(error: BaseException, lines: Sequence[str]) -> None:
    """Add the method that IPython calls for an error's traceback."""
    shown = list(lines)
    vars(error)["_render_traceback_"] = lambda: shown


def error_lines(error: MicromegasError, *, sql: str | None = None) -> list[str]:
    """Return the error's lines; a single line if it has neither a position in the SQL nor a query ID."""
    from micromegas_jupyter.core.error_page import where_to_read  # imports importlib.metadata

    sentence = "✗ " + cut(printable(f"{error.what} {error.remedy}".strip()), _MAX_SENTENCE_CHARACTERS)
    excerpt = statement_excerpt(error, sql)
    if not excerpt and error.query_id is None:
        return [f"{sentence} · {error.code}{where_to_read(error.code)}"]
    query = "" if error.query_id is None else f"query {short_query_id(error.query_id)} · "
    more = f"more: %micromegas_explain {error.code}{where_to_read(error.code)}"
    return [sentence, *excerpt, f"  {query}{error.code} · {more}"]


@dataclass(frozen=True, slots=True, repr=False)
class PlainText:
    """Multi-line text; characters that could control a terminal or page are escaped when shown."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "\n".join(printable(line) for line in self.text.split("\n"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of printable text as a cell's value, with a note below and right-aligned columns."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    right: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        lines = [line.rstrip() for line in self._tabulate("simple").split("\n")] if self.rows else []
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_html_(self) -> str:
        table = self._tabulate("html") if self.rows else ""
        for cell in ("td", "th"):  # a notebook would align these to the right
            table = table.replace(f"<{cell}>", f'<{cell} style="text-align: left; white-space: pre-wrap;">')
        note = f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div class="micromegas-table" style="overflow-x:auto">{table}{note}</div>'

    def _tabulate(self, table_format: str) -> str:
        from tabulate import tabulate

        sides = ["right" if name in self.right else "left" for name in self.head]
        return tabulate(self.rows, self.head, tablefmt=table_format, disable_numparse=True, colalign=sides)


def help_as_line_magic(lines: list[str]) -> list[str]:
    """Turn a cell that only requests help into a line magic; IPython doesn't call cell magics without a body."""
    found = _CELL_OF_ONE_LINE.fullmatch("".join(lines))
    return [f"%{found[1]}\n"] if found and HELP_OPTION in found[1].split() else lines
