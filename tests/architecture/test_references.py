"""What pages say of settings, errors, metrics, options and names, between `<!-- code: … -->` and `<!-- end -->`.

After a change in the code, `python -m tests.architecture.test_references` writes these parts anew.
"""

import argparse
import re
from collections import defaultdict
from dataclasses import fields

from IPython.core.magic import Magics

import micromegas_jupyter
from micromegas_jupyter import access, auth, testing
from micromegas_jupyter.cli.main import add_server_arguments, build_parser
from micromegas_jupyter.cli.query_commands import add_row_arguments
from micromegas_jupyter.config.client import ClientSettings, PrivateKeySetting, WorkloadSetting
from micromegas_jupyter.config.server import SETTINGS
from micromegas_jupyter.core.error_page import error_entry
from micromegas_jupyter.errors import error_classes
from micromegas_jupyter.notebook import extension
from tests.architecture.guide_text import DOCS
from tests.architecture.test_metrics_page import families

NO_OPTIONS = "It has no options of its own."
COMMAND = "python -m tests.architecture.test_references"
PART = re.compile(r"(<!-- code: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
#: The parts of the pages' tables, and what each has: the first whose pattern fits a name.
CLIENT = {
    "settings without a person": r"client_secret.*|private_key.*|api_key_file|service_account_file|workload.*",
    "settings of the connection": r"uri|ca_bundle|client_\w+_file|read_only",
    "settings of signing in": r".*",
}
#: The server's settings that limit what callers use are on a page of their own.
SERVER = {
    "limits of the server": (
        r"memory_|statement_memory|query_timeout|max_|queue_timeout|spill_mib|(read|write|upload|connection_idle)_timeout|"
        r"ticket_lifetime"
    ),
    "settings of the server": r".*",
}
ERRORS = {
    "errors of use": r"CONF|USE",
    "errors of signing in": r"AUTH",
    "errors of availability": r"AVAIL",
    "errors of queries": r"SQL",
    "other errors": r".*",
}
METRICS = {
    "metrics of queries": r"micromegas_server_(quer|rows|bytes|limits)",
    "metrics of calls": r"micromegas_server_(calls|prepared|log|loop)",
    "metrics of executors": r"micromegas_server_(executors|statements)",
    "metrics of ingest": r"micromegas_server_(ingest|table|lake)",
    "metrics of exports": r"micromegas_server_otlp",
    "metrics of access": r"micromegas_access",
    "metrics of TLS": r"micromegas_tls",
}
API = (micromegas_jupyter, testing, auth, access)
FORMATTER = argparse.HelpFormatter(prog="")


def table(*rows):
    """Return a table; its first row is the head."""
    lines = (f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))
    return "\n".join(lines).replace("  |", " |")


def code(text):
    return f"`{text}`" if text else ""


def capitalized(text):
    return text[:1].upper() + text[1:]


def split(patterns, named):
    """Return the values of each part of a page."""
    found = defaultdict(list)
    for name, value in named:
        found[next(part for part, pattern in patterns.items() if re.match(pattern, name))].append(value)
    return found


def client_settings():
    groups = (("", ClientSettings), ("private_key_", PrivateKeySetting), ("workload_", WorkloadSetting))
    for prefix, kind in groups:
        for entry in fields(kind):
            if entry.metadata:
                source = entry.metadata["source"]
                row = (code(source["variable"]), code(source["member"]), entry.metadata["unset"])
                yield prefix + entry.name, (*row, capitalized(entry.metadata["meaning"]))


def server_setting(setting):
    meaning = setting.meaning
    if setting.limits is not None:
        meaning += f"; {setting.limits[0]} to {setting.limits[1]}"
    elif setting.values_text.startswith("a number"):
        meaning += f"; {setting.values_text.removeprefix('a number ')}"
    elif setting.values_text.startswith("one of"):
        meaning += f": {', '.join(code(choice) for choice in setting.kind)}"
    default = "" if setting.default in {None, (), False} else f"{setting.default}"
    return code(setting.option), code(setting.variable), default, capitalized(meaning)


def metrics():
    for name, family in families().items():
        if name.startswith("process_"):  # their meanings are the library's
            continue
        labels = ", ".join(label for label in family.samples[0].labels if label != "le")
        meaning = family.documentation.removesuffix(".") + " (histogram)" * (family.type == "histogram")
        yield name, (code(name + f"{{{labels}}}" * bool(labels)), meaning)


def statuses():
    """Return a row for each gRPC status, with the codes that have it, and OK and those without a code."""
    found = defaultdict(list)
    for _, error in sorted(error_classes().items()):
        found[error.grpc_code].append(error)
    yield "`OK`", "200", "", ""
    for status, errors in sorted((found | {"CANCELLED": [], "NOT_FOUND": []}).items()):
        http = ", ".join(sorted({str(error.http_status) for error in errors}))
        links = ", ".join(f"[{error.code}](#{error.code.lower()})" for error in errors)
        yield code(status), http, links, "yes" if any(error.retryable for error in errors) else "no"


def options(parser, *, without=()):
    """Return what each argument is called and means, a line for each; the pages say once what all have."""
    return [
        f"- {', '.join(code(_call(action, name)) for name in action.option_strings or [''])}: {_meaning(action)}"
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction | argparse._SubParsersAction)
        and action.dest not in {"traceback", *without}
    ]


def _call(action, name):
    values = FORMATTER._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    return f"{name} {values.strip('{}').replace(',', '|') if action.choices and not action.metavar else values}".strip()


def _meaning(action):
    return with_code(FORMATTER._expand_help(action))


def with_code(text):
    """Mark options, variables and magics in a text as code."""
    return re.sub(r"(?<![\w`%-])(--[a-z][a-z-]*|MICROMEGAS_[A-Z_]+|%+micromegas_\w+)", r"`\1`", text)


def _options_of(add_arguments):
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return options(parser)


SHARED = [_options_of(add_row_arguments), _options_of(add_server_arguments)]


def _without_shared(lines):
    for shared in SHARED:
        if set(shared) <= set(lines):
            names = ", ".join(line.removeprefix("- ").partition(": ")[0] for line in shared)
            lines = [line for line in lines if line not in shared]
            return [*lines, f"- {names}: as for [`micromegas query`](#micromegas-query)"]
    return lines


def command(name, parser):
    """Return the options of a command, of each of its actions, and of all of these."""
    actions = commands(parser).values()
    if not actions:
        settings = {setting.name for setting in SETTINGS} if name == "serve" else set()  # server-settings.md has these
        lines = options(parser, without=settings)
        return "\n".join(lines if name == "query" else _without_shared(lines))
    first, *others = (set(options(action)) for action in actions)
    shared = first.intersection(*others) if others else set()
    lines = []
    for action in actions:
        words = [f"[{found.metavar}]" if found.nargs == "?" else found.metavar for found in positionals(action)]
        own = _without_shared([line for line in options(action) if line not in shared])
        lines += [f"- `{' '.join([action.prog, *words])}`: {action.description}", *(f"    {line}" for line in own)]
    if shared:
        common = _without_shared([line for line in options(action) if line in shared])
        lines += ["- all of these:", *(f"    {line}" for line in common)]
    return "\n".join(lines)


def commands(parser):
    """Return by its name the parser of each command or action."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(*found)


def positionals(parser):
    return [action for action in parser._actions if not action.option_strings]


def registered_magics():
    """Return the magics by their names, without a shell."""
    found = defaultdict(set)
    for kind in Magics.__subclasses__():
        if kind.__module__.startswith("micromegas_jupyter."):
            for name, method in {**kind.magics["line"], **kind.magics["cell"]}.items():
                found[getattr(kind, method)].add(name)
    found[extension.SqlMagic.micromegas_sql].add(extension._SHORT_NAME)
    return {tuple(sorted(names)): magic for magic, names in found.items()}


def magic_options():
    magics = registered_magics().values()
    return {name for magic in magics for action in magic.parser._actions for name in action.option_strings}


def api():
    for package in API:
        yield f"## `{package.__name__}`"
        homes = (getattr(package, name) for name in package.__all__ if name != "__version__")
        yield from (f"::: {home.__module__}.{home.__qualname__}" for home in homes)


def parts():
    """Return by its name what each part of a page has."""
    magics = {names: "\n".join(options(magic.parser)) for names, magic in registered_magics().items()}
    settings = split(CLIENT, client_settings())
    served = split(SERVER, ((setting.name, server_setting(setting)) for setting in SETTINGS))
    errors = split(ERRORS, sorted(error_classes().items()))
    head = ("Variable", "In `config.json`", "Default", "Meaning")
    server_head = ("Option", "Variable", "Default", "Meaning")
    return {
        **{name: table(head, *rows) for name, rows in settings.items()},
        **{name: table(server_head, *rows) for name, rows in served.items()},
        **{
            name: "\n\n".join(f"### {error.code}\n\n{error_entry(error)}" for error in found)
            for name, found in errors.items()
        },
        "statuses": table(("gRPC status", "HTTP", "Codes", "Retry"), *statuses()),
        **{name: table(("Metric", "Meaning"), *rows) for name, rows in split(METRICS, metrics()).items()},
        "metrics of the process": ", ".join(code(name) for name in families() if name.startswith("process_")),
        **{f"options of micromegas {name}": command(name, parser) for name, parser in commands(build_parser()).items()},
        **{f"options of %{names[0]}": text or NO_OPTIONS for names, text in magics.items()},
        "public names": "\n\n".join(api()),
    }


def written_anew():
    """Return each page that has parts, as it is and as it should be."""
    made = parts()
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
    return {
        path: (text, PART.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", text))
        for path, text in pages.items()
        if PART.search(text)
    }


def test_each_part_stands_in_one_page():
    named = [part[2] for path in DOCS.rglob("*.md") for part in PART.finditer(path.read_text(encoding="utf-8"))]

    assert sorted(named) == sorted(parts())


def test_the_pages_say_what_the_code_says():
    stale = [path.name for path, (text, anew) in written_anew().items() if text != anew]

    assert stale == [], f"Run {COMMAND}"


if __name__ == "__main__":
    for path, (_, anew) in written_anew().items():
        path.write_text(anew, encoding="utf-8")
