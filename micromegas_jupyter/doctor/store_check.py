"""Looks at what is kept of a person's sign-in: where, whether it can be read, by whom else, and what else there is.

Reading it is `auth`'s job.
"""

import stat
from contextlib import suppress
from itertools import islice
from pathlib import Path

from micromegas_jupyter import assembly
from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.doctor.case import Case
from micromegas_jupyter.doctor.findings import Finding, complaint, failed, found, skipped
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.settings import ClientSettings

_MAX_FILES = 1000
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_store(case: Case) -> Finding:
    """Look where a person's sign-in is kept, whether it can be read, and who else may read it."""
    program = case.program_credential
    if program is not None:
        return skipped("store", f"not needed: {program}")
    if not case.names_a_provider:
        return skipped("store", "nothing is kept: no person signs in with these settings")
    modes = _modes(case)  # before anything that would mend them
    mode = modes.get(assembly.token_file(case.settings, case.environ))
    announced: list[str] = []
    store = assembly.sign_in_store(case.settings, case.environ, announce=announced.append)
    store.check_usable()
    mark = store.mark()
    is_kept = mark is not None
    others = [
        other for other in assembly.stored_sign_ins(case.settings, case.environ) if other.mark() not in {None, mark}
    ]
    facts: dict[str, object] = {
        "label": store.label,
        "holds_a_sign_in": is_kept,
        "mode": None if mode is None else f"{mode:04o}",
        "others": [other.label for other in others],
    }
    if mode is not None and mode & _OTHERS:
        return complaint(
            "store",
            f"{store.label} could be read by others (mode {mode:04o}).",
            remedy="It is yours alone from now on. Sign out and in again: somebody may have read it.",
            facts=facts,
        )
    damage = _damage(store, case.settings) if is_kept else None
    if damage is not None:
        return failed("store", damage)
    text = f"{store.label}{' holds a sign-in' if is_kept else f', nothing kept yet{_for_these(others)}'}"
    details = [*announced, *(_line_of_other(other, case.settings, is_kept=is_kept) for other in others)]
    return found("store", text + ("" if mode is None else f" (mode {mode:04o})"), details=details, facts=facts)


def _damage(store: SignInStore, settings: ClientSettings) -> LoginRequired | None:
    """Return what is wrong with the sign-in that is kept, None when it can be read."""
    try:
        store.load()
    except LoginRequired:
        profile = f" --profile {settings.profile}" if settings.profile else ""
        return LoginRequired(
            f"The sign-in in {store.label} is damaged.",
            remedy=f"Sign in again, which replaces it, or remove it with `micromegas logout{profile}`.",
        )
    return None


def _for_these(others: list[SignInStore]) -> str:
    return " for these settings" if others else ""


def _line_of_other(other: SignInStore, settings: ClientSettings, *, is_kept: bool) -> str:
    try:
        difference = _difference(other.load()[0].entry, settings)
    except (LoginRequired, TokenStoreError):
        return f"another sign-in of this profile, which cannot be read: {other.label}"
    if is_kept:
        return f"another sign-in of this profile{difference}: {other.label}"
    return f"a sign-in with other settings{difference} is kept in {other.label}"


def _difference(entry: SignInEntry, settings: ClientSettings) -> str:
    """Return in brackets what a sign-in has that these settings do not ask for; empty when nothing differs."""
    wanted_scope = set(settings.scope.split())
    pairs = (
        ("issuer", entry.issuer, settings.issuer),
        ("client id", entry.client_id, settings.client_id),
        ("audience", entry.audience, settings.audience),
        ("resource", entry.resource, settings.resource),
    )
    parts = [f"{name} {stored or 'none'}" for name, stored, wanted in pairs if (stored or None) != (wanted or None)]
    if entry.scope is not None and set(entry.scope.split()) != wanted_scope:
        parts.append(f"scope {entry.scope}")
    return f" ({', '.join(parts)})" if parts else ""


def _modes(case: Case) -> dict[Path, int]:
    folder = assembly.config_folder(case.environ)
    pattern = f"{Path(case.settings.token_file_name).stem}*.json"
    with suppress(OSError):
        listed = list(islice(folder.glob(pattern), _MAX_FILES))
        return {path: stat.S_IMODE(path.lstat().st_mode) for path in listed}
    return {}
