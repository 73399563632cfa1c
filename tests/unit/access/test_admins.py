"""Tests of `access.admins`."""

import logging

import pytest

from micromegas_jupyter.access.admins import AdminRules, parse_admin_rules
from micromegas_jupyter.errors import ConfigurationError

ONE = ("https://id.example.com",)
TWO = ("https://id.example.com", "https://second.example")


def test_a_bare_subject_belongs_to_the_only_issuer():
    rules = parse_admin_rules(["root"], issuers=ONE)

    assert rules.is_admin(issuer=ONE[0], subject="root", verified_email=None)
    assert not rules.is_admin(issuer=ONE[0], subject="Root", verified_email=None)
    assert not rules.is_admin(issuer="https://second.example", subject="root", verified_email=None)


def test_a_subject_with_its_issuer_is_an_administrator_of_that_issuer_only():
    rules = parse_admin_rules(["https://second.example|root"], issuers=TWO)

    assert rules == AdminRules(subjects=frozenset({("https://second.example", "root")}))
    assert not rules.is_admin(issuer=ONE[0], subject="root", verified_email=None)


def test_a_subject_may_hold_the_separator():
    rules = parse_admin_rules(["auth0|507f1f77", "https://id.example.com|auth0|99"], issuers=ONE)

    assert rules.is_admin(issuer=ONE[0], subject="auth0|507f1f77", verified_email=None)
    assert rules.is_admin(issuer=ONE[0], subject="auth0|99", verified_email=None)


def test_an_address_counts_when_the_only_issuer_verified_it():
    rules = parse_admin_rules(["root@example.com"], issuers=ONE)

    assert rules.is_admin(issuer=ONE[0], subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=ONE[0], subject="x", verified_email=None)
    assert not rules.is_admin(issuer=ONE[0], subject="x", verified_email="ROOT@example.com")


def test_a_bare_address_is_never_a_subject_since_people_may_choose_theirs():
    rules = parse_admin_rules(["root@example.com"], issuers=ONE)

    assert not rules.is_admin(issuer=ONE[0], subject="root@example.com", verified_email=None)
    assert rules.is_admin(issuer=ONE[0], subject="x", verified_email="root@example.com")


def test_a_subject_that_looks_like_an_address_is_written_with_its_issuer():
    rules = parse_admin_rules([f"{ONE[0]}|root@example.com"], issuers=ONE)

    assert rules.is_admin(issuer=ONE[0], subject="root@example.com", verified_email=None)


def test_with_several_issuers_a_bare_address_names_nobody_and_leaves_one_warning(caplog):
    with caplog.at_level(logging.WARNING, "micromegas_jupyter.access"):
        rules = parse_admin_rules(["root@example.com"], issuers=TWO)

    assert rules == AdminRules()
    assert not rules.is_admin(issuer=ONE[0], subject="root@example.com", verified_email="root@example.com")
    assert [vars(record)["subject"] for record in caplog.records] == ["root@example.com"]


def test_with_several_issuers_an_address_counts_with_its_issuer():
    rules = parse_admin_rules(["https://second.example|root@example.com"], issuers=TWO)

    assert rules.is_admin(issuer=TWO[1], subject="x", verified_email="root@example.com")
    assert not rules.is_admin(issuer=TWO[0], subject="x", verified_email="root@example.com")


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
