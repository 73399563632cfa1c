from types import SimpleNamespace
from typing import Any

import pytest
from traitlets import TraitError
from traitlets.config import Config

import micromegas_jupyter
from micromegas_jupyter.server_extension import _load_jupyter_server_extension, load
from micromegas_jupyter.server_extension.handlers import CallbackHandler, DoneHandler, StartHandler

VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"


class App(SimpleNamespace):
    """What the extension uses of a server."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.rules: list[Any] = []
        self.lines: list[str] = []
        super().__init__(
            config=Config({"MicromegasRelay": config or {}}),
            base_url="/x/",
            kernel_manager=object(),
            web_app=SimpleNamespace(add_handlers=lambda _host, rules: self.rules.extend(rules)),
            log=SimpleNamespace(info=lambda line, *_args: self.lines.append(line)),
        )


@pytest.fixture(autouse=True)
def _config_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    from micromegas_jupyter.server_extension import settings
    from micromegas_jupyter.server_extension.settings import MicromegasRelay

    monkeypatch.setattr(settings, "MicromegasRelay", lambda *, parent: MicromegasRelay(config=parent.config))


def test_jupyter_finds_the_extension_by_the_packages_name() -> None:
    points = micromegas_jupyter._jupyter_server_extension_points()

    assert points == [{"module": "micromegas_jupyter.server_extension"}]
    assert callable(_load_jupyter_server_extension)


def test_a_server_gets_the_addresses_and_its_kernels_are_told() -> None:
    app, environ = App(), {}

    load(app, environ)  # type: ignore[arg-type]

    assert [rule[1] for rule in app.rules[:3]] == [StartHandler, CallbackHandler, DoneHandler]
    assert all(rule[0].startswith("/x/micromegas") for rule in app.rules)
    assert environ == {VARIABLE: "/x/"}


def test_kernels_are_told_the_address_where_it_is_known() -> None:
    environ: dict[str, str] = {}

    load(App({"public_url": "https://lab.example.com/x"}), environ)  # type: ignore[arg-type]

    assert environ == {VARIABLE: "https://lab.example.com/x/"}


def test_a_server_of_a_hub_offers_nothing() -> None:
    app, environ = App(), {"JUPYTERHUB_API_TOKEN": "t", VARIABLE: "/inherited/"}

    load(app, environ)  # type: ignore[arg-type]

    assert app.rules == []
    assert VARIABLE not in environ
    assert len(app.lines) == 1


def test_a_server_of_a_hub_whose_administrator_said_so_does() -> None:
    environ = {"JUPYTERHUB_API_TOKEN": "t", "JUPYTERHUB_PUBLIC_URL": "https://hub.example.com/user/alice"}
    app = App({"per_user_redirect": True})

    load(app, environ)  # type: ignore[arg-type]

    assert len(app.rules) == 4
    assert environ[VARIABLE] == "https://hub.example.com/user/alice/"


def test_an_address_that_is_none_is_refused_when_the_server_starts() -> None:
    with pytest.raises(TraitError):
        load(App({"public_url": "lab.example.com"}), {})  # type: ignore[arg-type]
