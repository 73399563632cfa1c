"""The magics that the extension registers in a shell, each with its options as help writes them.

Run as a program it prints them as JSON: a shell leaves its marks on a process, so it gets one of its own.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache


@cache
def registered_magics():
    """Return the options of each magic by its names."""
    printed = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=True, timeout=100)
    return {tuple(names.split()): options for names, options in json.loads(printed.stdout).items()}


def option_texts(parser):
    formatter = argparse.HelpFormatter(prog="")
    return [
        _text_of(action, formatter)
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction) and action.help is not argparse.SUPPRESS
    ]


def _text_of(action, formatter):
    values = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    name = max(action.option_strings, key=len, default="")
    return f"{name} {values.strip('{}').replace(',', '|') if action.choices else values}".strip()


def _main():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.history_manager.enabled = False
    before = {(kind, name) for kind, magics in shell.magics_manager.magics.items() for name in magics}
    shell.extension_manager.load_extension("micromegas_jupyter")
    found = defaultdict(set)
    for kind, magics in shell.magics_manager.magics.items():
        for name, magic in magics.items():
            if (kind, name) not in before:
                found[getattr(magic, "__func__", magic)].add(name)
    print(json.dumps({" ".join(sorted(names)): option_texts(magic.parser) for magic, names in found.items()}))


if __name__ == "__main__":
    _main()
