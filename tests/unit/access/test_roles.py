"""Tests of `access.roles`: who administers the server, and which tables and rows each role shows."""

from __future__ import annotations

import logging

import pytest

from micromegas_jupyter.access.oidc import AdminRules, parse_admin_rules
from micromegas_jupyter.access.validator import Roles
from micromegas_jupyter.config.access import RoleSetting
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.errors import ConfigurationError

FIRST = "https://id.example.com"
SECOND = "https://second.example"
MAIL = "root@example.com"
ONE = (IssuerSetting(issuer=FIRST, aliases=("id.example.com",)),)
TWO = (IssuerSetting(issuer=FIRST), IssuerSetting(issuer=SECOND))


def trusting(first: bool | None, second: bool | None = None) -> tuple[IssuerSetting, IssuerSetting]:
    return (
        IssuerSetting(issuer=FIRST, is_trusted_for_email=first),
        IssuerSetting(issuer=SECOND, is_trusted_for_email=second),
    )


class TestAdmins:
    """Each entry is bound to an issuer; an address counts only where that issuer verified it."""

    @pytest.mark.parametrize(
        ("entry", "issuers", "subjects", "emails"),
        [
            ("root", ONE, {(FIRST, "root")}, set()),
            (f"{SECOND}|root", TWO, {(SECOND, "root")}, set()),
            ("auth0|507f1f77", ONE, {(FIRST, "auth0|507f1f77")}, set()),
            (f"{FIRST}|auth0|99", ONE, {(FIRST, "auth0|99")}, set()),
            ("id.example.com|123", ONE, {(FIRST, "123")}, set()),
            (MAIL, ONE, set(), {(FIRST, MAIL)}),
            (f"{FIRST}|{MAIL}", ONE, set(), {(FIRST, MAIL)}),
            (f"{SECOND}|{MAIL}", TWO, set(), {(SECOND, MAIL)}),
            (f"auth0|{MAIL}", ONE, set(), {(FIRST, f"auth0|{MAIL}")}),
            (MAIL, trusting(True), set(), {(FIRST, MAIL)}),
            (MAIL, trusting(True, False), set(), {(FIRST, MAIL)}),
            (MAIL, trusting(True, True), set(), {(FIRST, MAIL), (SECOND, MAIL)}),
            (f"{FIRST}|subject:{MAIL}", ONE, {(FIRST, MAIL)}, set()),
            *(
                (f"{FIRST}|{subject}", ONE, {(FIRST, subject)}, set())
                for subject in (f"google-apps|{MAIL}", "subject:7", "subject:a|b@c.example", "a@b@c", "@", "urn:x:a@b")
            ),
        ],
    )
    def test_what_an_entry_means(self, entry, issuers, subjects, emails, caplog):
        rules = parse_admin_rules([entry], issuers=issuers)

        assert rules == AdminRules(subjects=frozenset(subjects), emails=frozenset(emails))
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("entry", "issuers"), [(MAIL, TWO), (MAIL, trusting(False, None)), (f"{FIRST}|{MAIL}", trusting(False))]
    )
    def test_an_address_that_no_issuer_is_trusted_for_names_nobody_and_leaves_one_warning(self, entry, issuers, caplog):
        with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
            rules = parse_admin_rules([entry], issuers=issuers)

        assert rules == AdminRules()
        assert [vars(record)["subject"] for record in caplog.records] == [entry]

    @pytest.mark.parametrize(
        ("entry", "issuers"),
        [
            ("root", TWO),
            ("auth0|5", TWO),
            ("https://other.example|root", ONE),
            ("https://id.example.com/|root", ONE),
            ("https://id.example.com|", ONE),
            ("root", ()),
            ("root", tuple(IssuerSetting(issuer=f"https://login.example/{name}", tenant=name) for name in "ab")),
        ],
    )
    def test_an_entry_that_fits_no_issuer_stops_the_start_and_is_named(self, entry, issuers):
        with pytest.raises(ConfigurationError, match=r"FILE\.admins") as caught:
            parse_admin_rules([entry], issuers=issuers, key="FILE.admins")

        assert repr(entry) in str(caught.value)
        assert caught.value.key == "FILE.admins"

    def test_issuer_and_name_must_both_be_the_same(self):
        rules = parse_admin_rules(["root", MAIL], issuers=ONE)

        assert rules.is_admin(issuer=FIRST, subject="root")
        assert rules.is_admin(issuer=FIRST, subject="x", verified_email=MAIL)
        assert not rules.is_admin(issuer=FIRST, subject="Root")
        assert not rules.is_admin(issuer=SECOND, subject="root", verified_email=MAIL)
        assert not rules.is_admin(issuer=FIRST, subject=MAIL, verified_email=None)
        assert not rules.is_admin(issuer=FIRST, subject="x", verified_email=MAIL.upper())

    def test_a_member_of_an_administrators_group_administers_at_that_issuer_only(self):
        issuers = (IssuerSetting(issuer=FIRST, admin_groups=("ops", "leads")), IssuerSetting(issuer=SECOND))

        rules = parse_admin_rules([], issuers=issuers)

        assert rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "leads"))
        assert not rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "Leads"))
        assert not rules.is_admin(issuer=FIRST, subject="leads", groups=())
        assert not rules.is_admin(issuer=SECOND, subject="x", groups=("leads",))


ROLES = {
    "logs": RoleSetting(tables={"log_entries": None}),
    "eu_logs": RoleSetting(tables={"log_entries": "region = 'eu'"}),
    "us_logs": RoleSetting(tables={"log_entries": "region = 'us'"}),
    "all_eu": RoleSetting(tables={"*": "region = 'eu'"}),
    "all": RoleSetting(tables={"*": None}),
    "all_but_own_logs": RoleSetting(tables={"*": None, "log_entries": "owner = 'me'"}),
    "nothing": RoleSetting(),
}
EU, US = "region = 'eu'", "region = 'us'"


class TestRoles:
    """A row is visible when any of the caller's roles shows it."""

    @pytest.mark.parametrize(
        ("roles", "filters"),
        [
            ((), {}),
            *(((role,), {}) for role in ("nothing", "unknown", "LOGS", "")),
            (("logs",), {"log_entries": ()}),
            (("eu_logs", "us_logs"), {"log_entries": (EU, US)}),
            (("eu_logs", "logs"), {"log_entries": ()}),
            (("logs", "eu_logs"), {"log_entries": ()}),
            (("eu_logs", "all_eu"), {"*": (EU,), "log_entries": (EU,)}),
            (("us_logs", "all_eu"), {"*": (EU,), "log_entries": (US, EU)}),
            (("us_logs", "all"), {"*": (), "log_entries": ()}),
            (("all_but_own_logs",), {"*": (), "log_entries": ("owner = 'me'",)}),
            (("all_but_own_logs", "us_logs"), {"*": (), "log_entries": ("owner = 'me'", US)}),
        ],
    )
    def test_what_roles_show(self, roles, filters):
        access = Roles(ROLES).table_access(roles, is_admin=False)

        assert access is not None
        assert dict(access.filters) == filters
        assert access.may_read("measures") is ("*" in filters)

    def test_without_configured_roles_and_as_administrator_everyone_reads_everything(self):
        assert Roles().all_roles(["logs"]) == ()
        assert Roles().table_access(["logs"], is_admin=False) is None
        assert Roles(ROLES).table_access(["eu_logs"], is_admin=True) is None

    def test_an_empty_set_of_roles_is_a_configured_one(self):
        access = Roles({}).table_access(["logs"], is_admin=False)

        assert access is not None
        assert not access.may_read("log_entries")

    def test_default_roles_are_everybodys_and_each_counts_once_in_order_if_it_is_configured(self):
        roles = Roles(ROLES, ["logs", "gone"])

        assert roles.all_roles(["all", "unknown", "logs", "all", "nothing"]) == ("all", "logs", "nothing")
        assert roles.table_access([], is_admin=False) == Roles(ROLES).table_access(["logs"], is_admin=False)

    def test_what_a_set_of_roles_allows_is_worked_out_once(self):
        roles = Roles(ROLES)

        first = roles.table_access(["eu_logs", "gone"], is_admin=False)

        assert roles.table_access(["eu_logs"], is_admin=False) is first
        assert roles.table_access(["us_logs"], is_admin=False) is not first
