"""Which scope a program asks for; a person's is `settings`'s."""

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings


def service_scope(settings: ClientSettings) -> str | None:
    """Return the scope that somebody chose; None leaves it to the provider.

    The default, and what a preset puts in its place, ask for a person's claims, which no program has.
    """
    is_chosen = settings.scope != DEFAULT_SCOPE and not (settings.origin_of("scope") or "").startswith("preset ")
    return settings.scope if is_chosen else None
