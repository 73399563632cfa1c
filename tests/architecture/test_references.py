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
from micromegas_jupyter.cli.query_commands import add_range_arguments, add_row_arguments
from micromegas_jupyter.config.client import ClientSettings, PrivateKeySetting, WorkloadSetting
from micromegas_jupyter.config.server import SETTINGS
from micromegas_jupyter.core.error_page import error_entry
from micromegas_jupyter.errors import error_classes
from micromegas_jupyter.notebook import extension
from tests.architecture.guide_text import DOCS
from tests.architecture.test_metrics_page import families

NO_OPTIONS = "This magic has no options."
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
#: Fewer options are a list.
MIN_ROWS = 3
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


def arguments(parser, *, without=()):
    """Return the name and meaning of each argument, except for those that all commands or magics have."""
    return [
        (", ".join(_call(action, name) for name in action.option_strings or [""]), _meaning(action))
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction | argparse._SubParsersAction)
        and action.dest not in {"traceback", *without}
    ]


def _call(action, name):
    values = FORMATTER._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    return f"{name} {values.strip('{}').replace(',', '|') if action.choices and not action.metavar else values}".strip()


def _meaning(action):
    text = FORMATTER._expand_help(action)
    return with_code(text[0].upper() + text[1:]).replace("|", "&#124;")


def argument_cell(names):
    """Return names as code; a pipe would end the cell."""
    return ", ".join(
        f"<code>{name.replace('|', '&#124;')}</code>" if "|" in name else code(name) for name in names.split(", ")
    )


def with_code(text):
    """Mark options, variables and magics in a text as code."""
    return re.sub(r"(?<![\w`%-])(--[a-z][a-z-]*|MICROMEGAS_[A-Z_]+|%+micromegas_\w+)", r"`\1`", text)


def _arguments_of(add_arguments):
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return arguments(parser)


#: Options that many commands have; a page has their meanings once.
COMMON = [_arguments_of(add_range_arguments), _arguments_of(add_row_arguments), _arguments_of(add_server_arguments)]


def common_of_magics():
    """Return the groups of options that several magics have."""
    found = arguments(registered_magics()["micromegas_trace",].parser)
    groups = (("--begin TIME, --since TIME", "--end TIME"), ("--profile NAME", "--connection NAME"))
    return [[argument for argument in found if argument[0] in group] for group in groups]


def _split_default(meaning):
    text, _, default = meaning.partition("; default: ")
    return text, default


def without_common(found, common):
    """Return the arguments that are in no common group, and a sentence that names the others."""
    named = {names: _split_default(meaning) for names, meaning in found}
    shared = []
    for group in common:
        if all(named.get(names, ("",))[0] == _split_default(meaning)[0] for names, meaning in group):
            for names, meaning in group:
                default = named.pop(names)[1]
                name = code(names.split(",")[0].split()[0])
                shared.append(name if default == _split_default(meaning)[1] else f"{name} (default: {default})")
    own = [(names, meaning) for names, meaning in found if names in named]
    return own, f"[Common options](#common-options): {', '.join(shared)}." if shared else ""


def arguments_table(found, common):
    """Return a table of the arguments that are not common, and a link to those that are."""
    own, sentence = without_common(found, common)
    rows = [(argument_cell(names), meaning) for names, meaning in own]
    listed = table(("Option", "Description"), *rows) if len(rows) >= MIN_ROWS else "\n".join(map(list_entry, rows))
    return "\n\n".join(filter(None, [listed, sentence]))


def list_entry(row):
    return f"- {row[0]}: {row[1]}"


def command(name, parser):
    """Return the options of a command and of its actions, each once."""
    actions = commands(parser)
    if not actions:
        settings = {setting.name for setting in SETTINGS} if name == "serve" else set()  # server-settings.md has these
        return arguments_table(arguments(parser, without=settings), COMMON)
    users, sentences = defaultdict(list), defaultdict(list)
    for action, found in actions.items():
        own, sentence = without_common(arguments(found), COMMON)
        for argument in own:
            users[argument].append(action)
        if sentence:
            sentences[sentence].append(action)
    rows = [(argument_cell(names), _users(users[names, meaning], actions), meaning) for names, meaning in users]
    if len(actions) == 1:
        rows = [(names, meaning) for names, _, meaning in rows]
    head = ("Option", "Description") if len(actions) == 1 else ("Option", "Actions", "Description")
    common = [
        text if len(actions) in {1, len(used)} else f"{text.removesuffix('.')} (for {_users(used, actions)})."
        for text, used in sentences.items()
    ]
    return "\n\n".join(
        [table(("Action", "Description"), *map(_action_row, actions.values())), table(head, *rows), *common]
    )


def _users(names, actions):
    others = [name for name in actions if name not in names]
    if len(others) < 2 < len(actions):
        return " but ".join(["all", *map(code, others)])
    return ", ".join(map(code, names)) if others else "all"


def _action_row(parser):
    words = [f"[{found.metavar}]" if found.nargs in {"?", "*"} else found.metavar for found in positionals(parser)]
    return argument_cell(" ".join([parser.prog.removeprefix("micromegas "), *words])), parser.description.removesuffix(
        "."
    )


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


def common_table(groups):
    rows = dict(found for group in groups for found in group)
    return table(("Option", "Description"), *((argument_cell(names), meaning) for names, meaning in rows.items()))


def parts():
    """Return by its name what each part of a page has."""
    common = common_of_magics()
    magics = {
        names[0]: arguments_table(arguments(magic.parser), common) for names, magic in registered_magics().items()
    }
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
        **{f"options of %{name}": text or NO_OPTIONS for name, text in magics.items()},
        "common options of commands": common_table(COMMON),
        "common options of magics": common_table(common),
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
