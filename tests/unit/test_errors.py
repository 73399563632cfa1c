"""Tests of `errors`."""

import re
from importlib import import_module

import grpc
import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.errors import (
    ConfigurationError,
    InvalidStatement,
    MicromegasError,
    MissingPackage,
    QueryCancelled,
    Rejected,
    Unavailable,
    error_classes,
    extra,
)

OWN_CLASSES = [found for found in error_classes().values() if found.__module__ == errors.__name__]


def test_an_error_says_what_happened_and_what_to_do():
    error = Unavailable("The lake does not respond.", query_id="7f3a")

    assert str(error) == "The lake does not respond. Try again in a moment."
    assert (error.what, error.remedy, error.query_id) == (
        "The lake does not respond.",
        "Try again in a moment.",
        "7f3a",
    )


def test_a_remedy_of_its_own_replaces_the_general_one_and_may_be_empty():
    assert str(Unavailable("Down.", remedy="Wait.")) == "Down. Wait."
    assert str(Unavailable("Down.", remedy="")) == "Down."


def test_an_import_that_fails_says_what_to_install_unless_the_module_is_the_packages_own():
    with pytest.raises(MissingPackage) as raised, extra("server", "demo"):
        import_module("not_installed_here.part")
    with pytest.raises(ModuleNotFoundError), extra("server"):
        import_module("micromegas_jupyter.no_such_module")

    assert str(raised.value) == (
        "The package not_installed_here is not installed. "
        "Run: pip install 'micromegas_jupyter[server]' 'micromegas_jupyter[demo]'"
    )


def test_a_configuration_error_names_its_key():
    assert ConfigurationError("Bad.", key="MICROMEGAS_ADMINS").key == "MICROMEGAS_ADMINS"


def test_a_rejection_keeps_its_reason_from_the_client():
    error = Rejected(reason="audience_mismatch")

    assert error.reason == "audience_mismatch"
    assert "audience" not in str(error)


def test_a_query_error_knows_its_place():
    error = InvalidStatement("No such column.", line=2, column=5)

    assert (error.line, error.column) == (2, 5)


@pytest.mark.parametrize("kind", OWN_CLASSES, ids=lambda kind: kind.code)
def test_a_copy_says_the_same_and_is_another_error(kind):
    cause = ValueError("cause")
    try:
        raise kind("What.", **({"key": "KEY"} if kind is ConfigurationError else {})) from cause
    except MicromegasError as caught:
        error = caught
    error.remedy = "Do."

    copied = error.copy()
    copied.remedy = "Do something else."

    assert type(copied) is kind
    assert (vars(copied) | {"remedy": "Do."}, copied.args, copied.__cause__) == (vars(error), error.args, cause)
    assert (str(error).endswith("Do."), copied.__traceback__) == (True, None)


def test_rejected_and_unavailable_never_catch_each_other():
    assert not issubclass(Rejected, Unavailable)
    assert not issubclass(Unavailable, Rejected)


def test_every_code_belongs_to_one_class():
    assert len({found.code for found in OWN_CLASSES}) == len(OWN_CLASSES)
    assert error_classes()["AUTH010"] is Rejected


@pytest.mark.parametrize("found", OWN_CLASSES, ids=lambda found: found.__name__)
def test_every_class_has_a_place_on_every_edge(found):
    assert re.fullmatch(r"[A-Z]+\d{3}", found.code)
    assert found.grpc_code in grpc.StatusCode.__members__
    assert 400 <= found.http_status < 600
    assert found.exit_code in {1, 2, 3, 4}


def test_only_what_may_work_later_is_retryable():
    assert {found.__name__ for found in OWN_CLASSES if found.retryable} == {
        "Unavailable",
        "ProviderUnavailable",
        "ServerUnavailable",
    }


def test_no_status_of_a_server_ends_a_clients_process():
    assert [found for found in OWN_CLASSES if found.grpc_code == "CANCELLED"] == []
    assert QueryCancelled.grpc_code == "ABORTED"


def test_the_old_name_of_the_sign_in_service_still_works_with_a_warning():
    error = errors.LoginRequired("Signed out.")
    error.sign_in_service = "JupyterHub"

    with pytest.warns(DeprecationWarning, match="sign_in_service"):
        assert error.giver == "JupyterHub"
