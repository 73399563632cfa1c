"""After a run of everything, no secret that was in play stands anywhere but where it belongs.

That the search would find one is shown by `test_secret_scanner`.
"""

import pytest

from micromegas_jupyter.demo import stack as demo_stack
from micromegas_jupyter.demo.stack import DemoStack
from tests.integration.system.escapes.gathering import ProcessWatch, everything_logged
from tests.integration.system.escapes.others import ECHOED_SECRET, Others
from tests.integration.system.escapes.run_of_everything import RunOfEverything, on_a_hub
from tests.integration.system.escapes.secrets_in_play import Allowed, Kind, Place, SecretsInPlay, scan, summary
from tests.integration.system.escapes.watched_providers import WatchedDemoProvider

# The first test waits for everything to be done.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

KEPT_IN = r"/config/\.?tokens[^/]*$|/persons-keyring\.json$"
START_ADDRESS = frozenset({Kind.START_ADDRESS})
IN_AN_ADDRESS = frozenset({Kind.STATE, Kind.NONCE, Kind.CHALLENGE})

# Where a secret may be. The provider's own memory and what the test itself holds are not searched.
ALLOWED = (
    Allowed(
        place=Place.FILE,
        name=KEPT_IN,
        kinds=frozenset({Kind.ACCESS_TOKEN, Kind.ID_TOKEN, Kind.REFRESH_TOKEN, Kind.NONCE}),
        reason="the sign-in is kept there; its ID token says the nonce",
    ),
    Allowed(place=Place.FILE, name="/given/", kinds=frozenset(Kind), reason="the person's own files"),
    Allowed(
        place=Place.ENVIRONMENT,
        name="^program$",
        kinds=frozenset({Kind.CLIENT_SECRET, Kind.API_KEY}),
        reason="the person put it there; whatever the program starts must not inherit it",
    ),
    Allowed(
        place=Place.ENVIRONMENT,
        name="^program$|^child of a program: uname$",
        kinds=frozenset({Kind.HUB_TOKEN}),
        reason="the Hub put it there, for all programs of the server; Python itself starts uname to know its machine",
    ),
    Allowed(place=Place.OUTPUT, name="paste", kinds=IN_AN_ADDRESS, reason="the person opens that address"),
    Allowed(
        place=Place.OUTPUT, name="device", kinds=frozenset({Kind.USER_CODE}), reason="the person types it elsewhere"
    ),
    Allowed(place=Place.OUTPUT, name="browser", kinds=START_ADDRESS, reason="for when no browser opens"),
    Allowed(
        place=Place.ARGUMENTS,
        name="^child of a program",
        kinds=START_ADDRESS,
        reason="the browser has to be told what to open",
    ),
    Allowed(
        place=Place.NOTEBOOK,
        name="^messages$",
        kinds=IN_AN_ADDRESS | START_ADDRESS | {Kind.USER_CODE},
        reason="shown while the sign-in waits, and taken out of the notebook at its end",
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    secrets, processes = SecretsInPlay(), ProcessWatch()
    folder = tmp_path_factory.mktemp("everything")

    def provider(**options):
        return WatchedDemoProvider(secrets=secrets, on_request=processes.look, device_interval_seconds=1, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_stack, "DemoProvider", provider)
        patch.setenv("HOME", str(folder))
        with DemoStack(spare_executors=1) as stack:
            done = RunOfEverything(folder, stack, secrets, processes)
            with everything_logged(done.texts), Others(done, processes) as others:
                done.with_confidential_application(others.application(), ECHOED_SECRET)
                done.at_terminal()
                done.in_library(others.told())
                done.with_service_account()
                done.with_api_key()
                done.in_notebook()
                done.in_shells()
                on_a_hub(done)
                assert others.echo.manners == [], "the provider was not asked as often as it was to repeat secrets"
            done.gather()
    return done


@pytest.mark.parametrize("place", list(Place))
def test_no_secret_is_in_any(place, run):
    texts = [text for text in run.texts if text.place is place]

    findings = scan(texts, run.secrets, ALLOWED)

    assert any(text.text.strip() for text in texts)
    assert not findings, summary(findings)


@pytest.mark.parametrize("kind", list(Kind))
def test_this_was_in_play(kind, run):
    assert kind in {secret.kind for secret in run.secrets}


@pytest.mark.parametrize("rule", ALLOWED, ids=lambda rule: f"{rule.place}: {rule.name}")
def test_this_place_needs_its_secret(rule, run):
    others = [allowed for allowed in ALLOWED if allowed is not rule]

    findings = scan([text for text in run.texts if text.place is rule.place], run.secrets, others)

    assert findings, "nothing needs this exception any more"


def test_what_holds_secrets_was_never_open_to_others(run):
    kept = [
        text for text in run.texts if text.place is Place.FILE and "/config/" in text.name and "tokens" in text.name
    ]

    modes = {text.mode for text in kept}

    assert modes == {0o600}


def test_the_programs_were_watched_from_inside_and_outside(run):
    loggers = {text.name.partition(".")[0] for text in run.texts if text.place is Place.LOG}
    classes = {text.name for text in run.texts if text.place is Place.REPR}
    errors = {text.name for text in run.texts if text.place is Place.TRACEBACK}
    started = {text.name for text in run.texts if text.place is Place.ARGUMENTS}

    assert {"asyncio", "filelock", "micromegas_jupyter", "urllib3"} <= loggers
    assert "micromegas_jupyter.auth.provider.OidcAuthProvider" in classes
    assert {"LoginFailed", "LoginRequired", "ProviderMisbehaved", "ProviderUnavailable", "Rejected"} <= errors
    assert {"program", "child of a program", "child of a program: my-browser"} <= started
