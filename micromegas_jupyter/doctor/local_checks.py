"""Checks that need nobody else: the program, where it runs, and the file with an API key.

Settings are `settings_check`'s, and what is kept is `store_check`'s.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

from micromegas_jupyter import __version__, assembly
from micromegas_jupyter.auth.api_key_file import OPEN_REMEDY, read_api_key_file
from micromegas_jupyter.auth.flow_choice import NOBODY_THERE
from micromegas_jupyter.client.wrapper import DEPRECATION_NOTICE
from micromegas_jupyter.doctor.case import Case
from micromegas_jupyter.doctor.findings import Finding, complaint, found, skipped
from micromegas_jupyter.settings import Flow
from micromegas_jupyter.settings.client_profile import WRAPPER_VARIABLE

_LIBRARIES = ("pyarrow", "authlib", "joserfc", "ipywidgets", "anywidget", "keyring")


def check_program() -> Finding:
    """Say which versions run."""
    versions = {name: _version(name) for name in _LIBRARIES}
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    return found(
        "program",
        f"micromegas_jupyter {__version__} on Python {platform.python_version()} ({platform.system()})",
        details=[listed],
        facts={"version": __version__, "python": platform.python_version(), "libraries": versions},
    )


def check_wrapper(environ: Mapping[str, str]) -> Finding | None:
    """Complain about a wrapper module, which hides everything else from view; None when there is none."""
    if not environ.get(WRAPPER_VARIABLE):
        return None
    return complaint("wrapper", f"{WRAPPER_VARIABLE} is set.", remedy=DEPRECATION_NOTICE)


def check_flow(case: Case, *, offers_device: bool | None = None) -> Finding:
    """Say where the program runs and how a person would sign in there, and why so; the provider is not asked.

    Args:
        case: What is looked at.
        offers_device: Whether the provider has a sign-in with a code; None when that could not be found out.
    """
    program = case.program_credential
    if program is not None:
        return skipped("sign-in", f"not needed: {program}")
    choice = assembly.choose_flow(
        case.settings,
        facts=case.facts,
        environ=case.environ,
        can_device=True if offers_device is None else offers_device,
    )
    facts = {
        "surroundings": choice.surroundings.value,
        "flow": None if choice.flow is None else choice.flow.value,
        "fallbacks": [flow.value for flow in choice.fallbacks],
        "origin": choice.origin,
    }
    details = [f"not {entry.flow.value}: {entry.reason}" for entry in choice.skipped]
    if offers_device is None and choice.flow is Flow.DEVICE and case.settings.issuer is not None:
        details.append("whether the provider offers that is not known: see issuer")
    if choice.fallbacks:
        details.append("otherwise " + ", then ".join(flow.value for flow in choice.fallbacks))
    if choice.flow is None:
        nobody = choice.surroundings in NOBODY_THERE
        if nobody or not case.names_a_provider:
            # Whether a person is needed at all is seen when the token is asked for.
            what = "nobody can sign in here" if nobody else "nobody has to sign in"
            return found("sign-in", f"{choice.surroundings.value}: {what}", facts=facts)
        return complaint("sign-in", f"{choice.surroundings.value}: {choice.reason}", remedy=choice.remedy, facts=facts)
    return found(
        "sign-in",
        f"{choice.surroundings.value}: {choice.flow.value}. {choice.reason}",
        details=details,
        facts=facts,
    )


def check_api_key_file(path: PurePath) -> Finding:
    """Look at the file with the API key, and who may read it."""
    file = read_api_key_file(path)
    if file.is_readable_by_others:
        return complaint("api key file", f"Others can read {file.name}.", remedy=OPEN_REMEDY)
    return found("api key file", f"{file.name} is there, and nobody else can read it")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
