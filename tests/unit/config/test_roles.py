"""Tests of `settings.access`."""

import pytest

from micromegas_jupyter.config.access import RoleSetting, parse_roles, read_role_names
from micromegas_jupyter.errors import ConfigurationError


def test_a_role_names_tables_with_and_without_a_condition():
    roles = parse_roles({"viewer": {"tables": {"log_entries": None, "spans": "process_id = 'x'", "*": None}}}, "KEY")

    assert roles == {"viewer": RoleSetting(tables={"log_entries": None, "spans": "process_id = 'x'", "*": None})}


def test_a_list_of_tables_shows_all_their_rows():
    roles = parse_roles({"viewer": {"tables": ["log_entries", "measures"]}}, "KEY")

    assert roles == {"viewer": RoleSetting(tables={"log_entries": None, "measures": None})}


@pytest.mark.parametrize("roles", [{}, {"nobody": {"tables": {}}}])
def test_no_roles_and_a_role_that_reads_nothing_can_be_configured(roles):
    assert parse_roles(roles, "KEY").keys() == roles.keys()


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, "KEY"),
        ([], "KEY"),
        ({"": {"tables": []}}, "KEY"),
        ({"viewer": ["log_entries"]}, "KEY.viewer"),
        ({"viewer": {}}, "KEY.viewer.tables"),
        ({"viewer": {"tables": ["log_entries"], "rows": ""}}, "KEY.viewer"),
        ({"viewer": {"tables": None}}, "KEY.viewer.tables"),
        ({"viewer": {"tables": "log_entries"}}, "KEY.viewer.tables"),
        ({"viewer": {"tables": []}}, "KEY.viewer.tables"),
        ({"viewer": {"tables": [None]}}, "KEY.viewer.tables[0]"),
        ({"viewer": {"tables": {"": None}}}, "KEY.viewer.tables"),
        ({"viewer": {"tables": {"spans": ""}}}, "KEY.viewer.tables.spans"),
        ({"viewer": {"tables": {"spans": True}}}, "KEY.viewer.tables.spans"),
    ],
)
def test_a_malformed_role_is_refused_by_its_place(value, key):
    with pytest.raises(ConfigurationError) as caught:
        parse_roles(value, "KEY")

    assert caught.value.key == key


@pytest.mark.parametrize(("value", "names"), [("viewer", ("viewer",)), (["viewer", "editor"], ("viewer", "editor"))])
def test_configured_roles_can_be_named(value, names):
    assert read_role_names(value, "KEY", known_roles={"viewer", "editor"}) == names


def test_where_the_roles_are_not_known_any_name_will_do():
    assert read_role_names("viewer", "KEY", known_roles=None) == ("viewer",)


def test_a_role_that_is_not_configured_is_refused_by_its_name():
    with pytest.raises(ConfigurationError, match="KEY names the role 'editor', which is not configured"):
        read_role_names(["viewer", "editor"], "KEY", known_roles={"viewer"})


@pytest.mark.parametrize("value", [None, 5, [], "", [5]])
def test_another_value_names_no_role(value):
    with pytest.raises(ConfigurationError):
        read_role_names(value, "KEY", known_roles=None)
