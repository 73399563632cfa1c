"""Tests of `access.admins`."""

import logging

import pytest

from micromegas_jupyter.access.roles import AdminRules, check_admin_entries, parse_admin_rules
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import ConfigurationError

FIRST = "https://id.example.com"
SECOND = "https://second.example"
ONE = (IssuerSetting(issuer=FIRST),)
TWO = (IssuerSetting(issuer=FIRST), IssuerSetting(issuer=SECOND))


def test_a_bare_subject_belongs_to_the_only_issuer():
    rules = parse_admin_rules(["root"], issuers=ONE)

    assert rules.is_admin(issuer=FIRST, subject="root", verified_email=None)
    assert not rules.is_admin(issuer=FIRST, subject="Root", verified_email=None)
    assert not rules.is_admin(issuer=SECOND, subject="root", verified_email=None)


def test_a_subject_with_its_issuer_is_an_administrator_of_that_issuer_only():
    rules = parse_admin_rules(["https://second.example|root"], issuers=TWO)

    assert rules == AdminRules(subjects=frozenset({(SECOND, "root")}))
    assert not rules.is_admin(issuer=FIRST, subject="root", verified_email=None)


def test_a_subject_may_hold_the_separator():
    rules = parse_admin_rules(["auth0|507f1f77", "https://id.example.com|auth0|99"], issuers=ONE)

    assert rules.is_admin(issuer=FIRST, subject="auth0|507f1f77", verified_email=None)
    assert rules.is_admin(issuer=FIRST, subject="auth0|99", verified_email=None)


def test_an_address_counts_when_the_only_issuer_verified_it():
    rules = parse_admin_rules(["root@example.com"], issuers=ONE)

    assert rules.is_admin(issuer=FIRST, subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=FIRST, subject="x", verified_email=None)
    assert not rules.is_admin(issuer=FIRST, subject="x", verified_email="ROOT@example.com")


def test_a_bare_address_is_never_a_subject_since_people_may_choose_theirs():
    rules = parse_admin_rules(["root@example.com"], issuers=ONE)

    assert not rules.is_admin(issuer=FIRST, subject="root@example.com", verified_email=None)
    assert rules.is_admin(issuer=FIRST, subject="x", verified_email="root@example.com")


def test_an_address_with_its_issuer_is_an_address_only():
    rules = parse_admin_rules([f"{FIRST}|root@example.com"], issuers=ONE)

    assert not rules.is_admin(issuer=FIRST, subject="root@example.com", verified_email=None)
    assert rules.is_admin(issuer=FIRST, subject="x", verified_email="root@example.com")


def test_a_subject_that_looks_like_an_address_is_written_with_the_word_subject():
    rules = parse_admin_rules([f"{FIRST}|subject:root@example.com"], issuers=ONE)

    assert rules == AdminRules(subjects=frozenset({(FIRST, "root@example.com")}))


@pytest.mark.parametrize(
    "subject",
    ["google-apps|root@example.com", "subject:7", "subject:a|b@example.com", "a@b@c", "@", "urn:x:a@b.example"],
)
def test_what_is_no_address_is_a_subject_as_it_is_written(subject):
    assert parse_admin_rules([f"{FIRST}|{subject}"], issuers=ONE).subjects == {(FIRST, subject)}


def test_with_several_issuers_a_bare_address_names_nobody_and_leaves_one_warning(caplog):
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
        rules = parse_admin_rules(["root@example.com"], issuers=TWO)

    assert rules == AdminRules()
    assert not rules.is_admin(issuer=FIRST, subject="root@example.com", verified_email="root@example.com")
    assert [vars(record)["subject"] for record in caplog.records] == ["root@example.com"]


def test_with_several_issuers_an_address_counts_with_its_issuer():
    rules = parse_admin_rules(["https://second.example|root@example.com"], issuers=TWO)

    assert rules.is_admin(issuer=SECOND, subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=FIRST, subject="x", verified_email="root@example.com")


@pytest.mark.parametrize(
    ("entry", "issuers"),
    [
        ("root", TWO),
        ("auth0|5", TWO),
        ("https://other.example|root", ONE),
        ("https://id.example.com/|root", ONE),
        ("https://id.example.com|", ONE),
        ("root", ()),
    ],
)
def test_an_entry_that_fits_no_issuer_stops_the_start_and_is_named(entry, issuers):
    with pytest.raises(ConfigurationError) as caught:
        parse_admin_rules([entry], issuers=issuers)

    assert repr(entry) in str(caught.value)
    assert caught.value.key == "MICROMEGAS_ADMINS"
    with pytest.raises(ConfigurationError, match=r"FILE\.admins") as caught:
        check_admin_entries([entry], issuers=issuers, place="FILE.admins")
    assert caught.value.key == "FILE.admins"


def test_checking_entries_leaves_no_warning(caplog):
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
        check_admin_entries(["root@example.com", f"{FIRST}|x"], issuers=TWO, place="FILE.admins")

    assert caplog.records == []


def trusting(first: bool | None, second: bool | None = None) -> tuple[IssuerSetting, IssuerSetting]:
    return (
        IssuerSetting(issuer=FIRST, is_trusted_for_email=first),
        IssuerSetting(issuer=SECOND, is_trusted_for_email=second),
    )


@pytest.mark.parametrize("second", [None, False])
def test_with_several_issuers_a_bare_address_counts_from_the_one_that_is_trusted(second):
    rules = parse_admin_rules(["root@example.com"], issuers=trusting(True, second))

    assert rules.is_admin(issuer=FIRST, subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=SECOND, subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=FIRST, subject="root@example.com")


def test_a_bare_address_counts_from_each_issuer_that_is_trusted():
    rules = parse_admin_rules(["root@example.com"], issuers=trusting(True, True))

    assert rules.emails == {(FIRST, "root@example.com"), (SECOND, "root@example.com")}


def test_an_issuer_that_is_not_trusted_for_mail_makes_no_administrator_by_address(caplog):
    issuers = (IssuerSetting(issuer=FIRST, is_trusted_for_email=False),)

    rules = parse_admin_rules(["root@example.com", f"{FIRST}|boss@example.com"], issuers=issuers)

    assert rules == AdminRules()
    assert [vars(record)["subject"] for record in caplog.records] == ["root@example.com", f"{FIRST}|boss@example.com"]


def test_the_tenants_of_one_template_are_several_issuers():
    tenants = tuple(
        IssuerSetting(issuer=f"https://login.example.com/{name}/v2.0", tenant=name) for name in ("first", "second")
    )

    with pytest.raises(ConfigurationError, match=r"issuer\|subject"):
        parse_admin_rules(["root"], issuers=tenants)
    assert parse_admin_rules(["root@example.com"], issuers=tenants).emails == frozenset()


def test_an_entry_with_an_alias_names_the_configured_issuer():
    issuers = (IssuerSetting(issuer="https://accounts.google.com", aliases=("accounts.google.com",)),)

    rules = parse_admin_rules(["accounts.google.com|123"], issuers=issuers)

    assert rules.subjects == {("https://accounts.google.com", "123")}


def test_a_bare_entry_with_a_separator_and_an_address_is_an_address_only():
    rules = parse_admin_rules(["auth0|root@example.com"], issuers=ONE)

    assert not rules.is_admin(issuer=FIRST, subject="auth0|root@example.com")


def test_a_member_of_an_administrators_group_administers_at_that_issuer_only():
    issuers = (IssuerSetting(issuer=FIRST, admin_groups=("ops", "leads")), IssuerSetting(issuer=SECOND))

    rules = parse_admin_rules([], issuers=issuers)

    assert rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "leads"))
    assert not rules.is_admin(issuer=FIRST, subject="x", groups=("dev", "Leads"))
    assert not rules.is_admin(issuer=FIRST, subject="leads", groups=())
    assert not rules.is_admin(issuer=SECOND, subject="x", groups=("leads",))
