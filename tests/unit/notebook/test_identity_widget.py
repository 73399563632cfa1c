import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from micromegas_jupyter.notebook import identity_widget
from micromegas_jupyter.notebook.identity_state import IdentityState, IdentityStatus
from micromegas_jupyter.notebook.identity_widget import IdentityWidget
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_parts import START_URL

WAITING = IdentityState(
    status=IdentityStatus.WAITING,
    server="lake.example.com",
    issuer="id.example.com",
    start_url=START_URL,
    ends_at=datetime(2026, 11, 24, 12, 10, tzinfo=UTC),
)
SIGNED_IN = IdentityState(
    status=IdentityStatus.SIGNED_IN,
    server="lake.example.com",
    issuer="id.example.com",
    name="Alice Martin",
    email="alice@example.com",
    is_admin=True,
    server_line="connected as alice@example.com, 14 ms",
    ends_at=datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
    renews=True,
)


@pytest.fixture
def widget(clock: FakeClock) -> IdentityWidget:
    return IdentityWidget(clock=clock)


def test_the_traits_are_what_is_shown_and_nothing_else(widget: IdentityWidget) -> None:
    widget.apply(SIGNED_IN)

    own = {
        name: value
        for name, value in widget.get_state().items()
        if not name.startswith("_") and name not in {"layout", "tooltip", "tabbable"}
    }
    assert own == {
        "status": "signed_in",
        "name": "Alice Martin",
        "email": "alice@example.com",
        "issuer": "id.example.com",
        "server": "lake.example.com",
        "server_line": "connected as alice@example.com, 14 ms",
        "detail": "",
        "start_url": "",
        "is_admin": True,
        "renews": True,
        "remaining_seconds": 3600.0,
        "as_of": "2026-11-24T12:00:00+00:00",
    }


def test_the_address_to_sign_in_at_goes_when_it_is_done(widget: IdentityWidget) -> None:
    widget.apply(WAITING)
    during = json.dumps(widget.get_state())

    widget.apply(SIGNED_IN)

    assert START_URL in during
    assert START_URL not in json.dumps(widget.get_state())


def test_a_page_that_is_loaded_later_gets_the_time_that_remains_then(widget: IdentityWidget, clock: FakeClock) -> None:
    widget.apply(SIGNED_IN)

    clock.advance(600)

    state = widget.get_state()
    assert (state["remaining_seconds"], state["as_of"]) == (3000.0, "2026-11-24T12:10:00+00:00")


def test_a_credential_that_does_not_end_has_no_remaining_time(widget: IdentityWidget) -> None:
    widget.apply(replace(SIGNED_IN, ends_at=None))

    assert widget.get_state()["remaining_seconds"] is None


def test_where_widgets_do_not_run_there_is_text_and_html(widget: IdentityWidget) -> None:
    widget.apply(WAITING)

    bundle, _ = widget._repr_mimebundle_()

    assert bundle["text/plain"] == (
        f"Sign in to id.example.com: open {START_URL} until 12:10 UTC. This notebook continues by itself."
    )
    assert f'<a href="{START_URL}" target="_blank" rel="noopener noreferrer">Sign in</a>' in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_widget_that_shows_nothing_yet_has_only_its_view(widget: IdentityWidget) -> None:
    bundle, _ = widget._repr_mimebundle_()

    assert "text/html" not in bundle


def test_the_browser_half_writes_text_and_never_markup() -> None:
    source = (Path(identity_widget.__file__).parent / "static" / "identity.js").read_text(encoding="utf-8")

    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "model.send"))
    assert 'link.rel = "noopener noreferrer"' in source
