"""Nothing secret is among the variables that a verbose traceback of a malformed setting shows."""

from __future__ import annotations

import pytest

from micromegas_jupyter.wiring import load_client_settings
from tests.fakes.tracebacks import verbose_traceback

HIDDEN = "hidden-text-0123456789"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MICROMEGAS_OIDC_CLIENT_SECRET", f"{HIDDEN}\n"),
        ("MICROMEGAS_OIDC_PROXY", f"ftp://me:{HIDDEN}@proxy.example"),
        ("MICROMEGAS_OIDC_PROXY", f"http://me:{HIDDEN}@proxy.example\n"),
        ("MICROMEGAS_OIDC_ISSUER", "http://id.example"),
    ],
)
def test_neither_the_setting_nor_the_others_are_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_SECRET", HIDDEN)
    monkeypatch.setenv(name, value)

    shown = verbose_traceback(load_client_settings)

    assert name in shown
    assert HIDDEN not in shown
