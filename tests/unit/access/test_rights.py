"""Tests of `access.rights`."""

import pytest

from micromegas_jupyter.access.roles import Rights
from micromegas_jupyter.config.access import RoleSetting

ROLES = {
    "logs": RoleSetting(tables={"log_entries": None}),
    "eu_logs": RoleSetting(tables={"log_entries": "region = 'eu'"}),
    "us_logs": RoleSetting(tables={"log_entries": "region = 'us'"}),
    "all_eu": RoleSetting(tables={"*": "region = 'eu'"}),
    "all": RoleSetting(tables={"*": None}),
    "all_but_own_logs": RoleSetting(tables={"*": None, "log_entries": "owner = 'me'"}),
    "nothing": RoleSetting(),
}


def filters_of(*roles: str, default_roles: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    access = Rights(ROLES, default_roles).table_access(roles, is_admin=False)
    assert access is not None
    return dict(access.filters)


def test_without_configured_roles_everyone_reads_everything():
    rights = Rights()

    assert rights.all_roles(["logs"]) == ()
    assert rights.table_access(["logs"], is_admin=False) is None


def test_an_empty_set_of_roles_is_a_configured_one():
    access = Rights({}).table_access(["logs"], is_admin=False)

    assert access is not None
    assert not access.may_read("log_entries")


def test_without_a_role_nothing_exists():
    access = Rights(ROLES).table_access([], is_admin=False)

    assert access is not None
    assert dict(access.filters) == {}
    assert not access.may_read("log_entries")
    assert not access.may_read("*")


@pytest.mark.parametrize("role", ["nothing", "unknown", "LOGS", ""])
def test_a_role_that_names_no_table_or_is_not_configured_gives_nothing(role):
    assert filters_of(role) == {}


def test_an_administrator_reads_everything_whatever_the_roles():
    assert Rights(ROLES).table_access([], is_admin=True) is None
    assert Rights(ROLES).table_access(["eu_logs"], is_admin=True) is None


def test_a_role_shows_its_tables_and_no_other():
    access = Rights(ROLES).table_access(["logs"], is_admin=False)

    assert access is not None
    assert access.conditions("log_entries") == ()
    assert not access.may_read("measures")


def test_two_conditions_show_the_rows_of_both():
    assert filters_of("eu_logs", "us_logs") == {"log_entries": ("region = 'eu'", "region = 'us'")}


def test_a_role_without_a_condition_shows_all_rows_whatever_the_others_say():
    assert filters_of("eu_logs", "logs") == {"log_entries": ()}
    assert filters_of("logs", "eu_logs") == {"log_entries": ()}


def test_the_same_condition_counts_once():
    assert filters_of("eu_logs", "all_eu") == {"*": ("region = 'eu'",), "log_entries": ("region = 'eu'",)}


def test_a_star_stands_for_tables_that_a_role_does_not_name():
    access = Rights(ROLES).table_access(["all_but_own_logs"], is_admin=False)

    assert access is not None
    assert access.conditions("measures") == ()
    assert access.conditions("log_entries") == ("owner = 'me'",)


def test_one_roles_star_widens_a_table_that_only_another_role_names():
    assert filters_of("us_logs", "all_eu")["log_entries"] == ("region = 'us'", "region = 'eu'")
    assert filters_of("us_logs", "all")["log_entries"] == ()


def test_one_roles_star_does_not_widen_what_the_same_role_limits():
    assert filters_of("all_but_own_logs", "us_logs")["log_entries"] == ("owner = 'me'", "region = 'us'")


def test_default_roles_are_everybodys():
    assert filters_of(default_roles=("eu_logs",)) == {"log_entries": ("region = 'eu'",)}
    assert filters_of("us_logs", default_roles=("eu_logs",)) == {"log_entries": ("region = 'us'", "region = 'eu'")}


def test_roles_are_named_once_in_order_and_only_those_that_are_configured():
    rights = Rights(ROLES, ["logs", "gone"])

    assert rights.all_roles(["all", "unknown", "logs", "all", "nothing"]) == ("all", "logs", "nothing")


def test_what_a_set_of_roles_allows_is_worked_out_once():
    rights = Rights(ROLES)

    first = rights.table_access(["eu_logs", "gone"], is_admin=False)

    assert rights.table_access(["eu_logs"], is_admin=False) is first
    assert rights.table_access(["us_logs"], is_admin=False) is not first
