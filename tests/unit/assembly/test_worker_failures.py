"""An error that ends a worker reaches the person with its class and words, without paths."""

from __future__ import annotations

import pytest
from micromegas_jupyter.assembly.workers.failures import describe_failure, rebuild_failure

from micromegas_jupyter.errors import ConfigurationError, InternalError, MicromegasError, Unavailable


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Unavailable("The disk is away.", remedy="Look."), Unavailable, "The disk is away."),
        (FileNotFoundError(2, "No usable temporary directory found in ['/secret']"), Unavailable, "cannot use a file"),
        (ValueError("/secret"), InternalError, "ValueError"),
    ],
)
def test_a_failure_keeps_its_class_and_words(error: Exception, kind: type[MicromegasError], words: str) -> None:
    rebuilt = rebuild_failure(describe_failure(error))

    assert type(rebuilt) is kind
    assert words in rebuilt.what
    assert "/secret" not in f"{rebuilt.what}{rebuilt.remedy}"


def test_a_setting_that_cannot_be_used_keeps_its_name() -> None:
    rebuilt = rebuild_failure(describe_failure(ConfigurationError("It is taken.", key="port", remedy="Take another.")))

    assert isinstance(rebuilt, ConfigurationError)
    assert rebuilt.key == "port"


@pytest.mark.parametrize("found", [None, {"code": "NONE999", "what": "x", "remedy": ""}, {"code": 1}])
def test_what_is_no_failure_becomes_a_defect(found: object) -> None:
    assert isinstance(rebuild_failure(found), InternalError)
