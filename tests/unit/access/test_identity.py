"""Tests of `access.identity`."""

import pytest

from micromegas_jupyter.access.oidc import IdentityRules
from micromegas_jupyter.access.roles import Rights, parse_admin_rules
from micromegas_jupyter.config.access import IssuerSetting, RoleSetting
from micromegas_jupyter.core.protocols import AuthContext, TableAccess
from micromegas_jupyter.oidc.claims import MAX_GROUPS
from tests.fakes.mint import ISSUER, NOW, NOW_SECONDS


def context_of(
    *admins: str, setting: IssuerSetting | None = None, rights: Rights | None = None, **claims: object
) -> AuthContext:
    issuer = setting or IssuerSetting(issuer=ISSUER)
    rules = IdentityRules(issuer, admins=parse_admin_rules(admins, issuers=(issuer,)), rights=rights or Rights())
    return rules.context_of({"sub": "alice", "exp": NOW_SECONDS, **claims}, subject="alice")


def test_a_bare_token_gives_subject_issuer_and_expiry():
    context = context_of()

    assert (context.subject, context.issuer, context.expires_at) == ("alice", ISSUER, NOW)
    assert (context.email, context.name, context.groups, context.client_id) == (None, None, (), None)
    assert (context.is_admin, context.may_delegate, context.email_verified) == (False, False, False)


EMAIL_CLAIMS = [
    "verified_primary_email",
    "email",
    "https://micromegas.io/email",
    "preferred_username",
    "upn",
    "unique_name",
]


@pytest.mark.parametrize("position", range(6))
def test_the_shown_address_is_the_first_that_is_there(position):
    claims = {name: f"{number}@example.com" for number, name in enumerate(EMAIL_CLAIMS) if number >= position}

    assert context_of(**claims).email == f"{position}@example.com"


@pytest.mark.parametrize("odd", ["", None, 5, True, [], [5], {}])
def test_an_odd_address_is_passed_over(odd):
    assert context_of(email=odd, upn="a@example.com").email == "a@example.com"


def test_the_first_of_several_primary_addresses_is_shown():
    assert context_of(verified_primary_email=["a@example.com", "b@example.com"]).email == "a@example.com"


@pytest.mark.parametrize("stated", [None, False, "true", "True", 1, [True], {}])
def test_only_json_true_verifies_an_address(stated):
    context = context_of("a@example.com", email="a@example.com", email_verified=stated)

    assert (context.email_verified, context.is_admin) == (False, False)


def test_a_verified_address_makes_an_administrator():
    context = context_of("a@example.com", email="a@example.com", email_verified=True)

    assert (context.email_verified, context.is_admin) == (True, True)


@pytest.mark.parametrize("name", ["preferred_username", "upn", "unique_name", "verified_primary_email", "name"])
def test_no_other_claim_makes_an_administrator(name):
    context = context_of("a@example.com", email_verified=True, **{name: "a@example.com"})

    assert (context.email_verified, context.is_admin) == (False, False)


def test_a_shown_address_is_not_verified_because_another_one_is():
    context = context_of(verified_primary_email="b@example.com", email="a@example.com", email_verified=True)

    assert (context.email, context.email_verified) == ("b@example.com", False)


def test_groups_come_from_four_places_each_once():
    context = context_of(
        groups=["ops", "dev"],
        roles=["dev", "writer"],
        realm_access={"roles": ["offline_access"]},
        **{"cognito:groups": ["eu"]},
    )

    assert context.groups == ("ops", "dev", "writer", "offline_access", "eu")


@pytest.mark.parametrize("odd", [None, "", 5, True, ["ops", 5], {"ops": 1}, [["ops"]]])
def test_a_place_that_is_neither_text_nor_a_list_of_texts_gives_no_groups(odd):
    assert context_of(groups=odd, realm_access={"roles": odd}, roles=["dev"]).groups == ("dev",)


@pytest.mark.parametrize("odd", [None, [], "roles"])
def test_odd_realm_access_gives_no_groups(odd):
    assert context_of(realm_access=odd).groups == ()


def test_groups_are_bounded():
    assert len(context_of(groups=[f"group{number}" for number in range(1000)]).groups) == MAX_GROUPS


@pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
def test_the_application_has_four_names(name):
    assert context_of(**{name: "notebook"}).client_id == "notebook"


def test_control_characters_in_display_claims_are_kept_as_text():
    context = context_of(email="a\r\n@example.com", name="A\x1b[31m\u2028Zoë")

    assert (context.email, context.name) == ("a\r\n@example.com", "A\x1b[31m\u2028Zoë")


def test_one_text_is_one_group():
    assert context_of(groups="ops", roles="dev writer").groups == ("ops", "dev writer")


def test_an_address_in_a_list_is_shown_and_never_verified():
    context = context_of("a@example.com", email=["a@example.com"], email_verified=True)

    assert (context.email, context.email_verified, context.is_admin) == ("a@example.com", False, False)


class TestGroupClaims:
    """Where an issuer's groups are."""

    def test_configured_places_stand_instead_of_the_usual_ones(self):
        setting = IssuerSetting(issuer=ISSUER, group_claims=(("resource_access", "lake", "roles"), ("teams",)))

        context = context_of(
            setting=setting, groups=["ops"], resource_access={"lake": {"roles": ["reader"]}}, teams="blue"
        )

        assert context.groups == ("reader", "blue")

    def test_names_are_literal(self):
        setting = IssuerSetting(issuer=ISSUER, group_claims=(("https://lake.example.com/roles",), ("a.b",)))

        context = context_of(setting=setting, a={"b": ["no"]}, **{"https://lake.example.com/roles": ["yes"]})

        assert context.groups == ("yes",)

    def test_no_place_gives_no_groups(self):
        setting = IssuerSetting(issuer=ISSUER, group_claims=())

        assert context_of(setting=setting, groups=["ops"], roles=["dev"]).groups == ()

    @pytest.mark.parametrize("odd", [None, "lake", ["lake"], {"lake": None}, {"lake": "roles"}, {"lake": []}, 5])
    def test_a_path_that_leads_nowhere_gives_no_groups(self, odd):
        setting = IssuerSetting(issuer=ISSUER, group_claims=(("resource_access", "lake", "roles"),))

        assert context_of(setting=setting, resource_access=odd).groups == ()


class TestGroupOverage:
    """A provider leaves groups out: then they are not known."""

    SETTING = IssuerSetting(issuer=ISSUER, admin_groups=("ops",), group_roles={"ops": ("reader",)})
    RIGHTS = Rights({"reader": RoleSetting(tables={"*": None})})

    @pytest.mark.parametrize(
        "overage",
        [
            {"_claim_names": {"groups": "src1"}},
            {"_claim_names": {"roles": "src1"}},
            {"_claim_names": {"cognito:groups": "src1"}},
            {"hasgroups": True},
            {"hasgroups": "true"},
        ],
        ids=str,
    )
    def test_no_rights_follow_from_groups_and_one_event_says_so(self, overage, caplog):
        context = context_of(setting=self.SETTING, rights=self.RIGHTS, roles=["ops"], groups=["ops"], **overage)

        assert (context.groups, context.roles, context.is_admin) == ((), (), False)
        assert context.table_access == TableAccess(filters={})
        assert [(record.getMessage(), vars(record)["subject"]) for record in caplog.records] == [
            ("A token leaves out its bearer's groups, so no rights follow from groups.", "alice")
        ]

    @pytest.mark.parametrize(
        "harmless",
        [
            {"_claim_names": {"address": "src1"}},
            {"_claim_names": ["groups"]},
            {"_claim_names": {}},
            {"hasgroups": False},
        ],
        ids=str,
    )
    def test_another_claim_that_is_left_out_changes_nothing(self, harmless, caplog):
        context = context_of(setting=self.SETTING, rights=self.RIGHTS, groups=["ops"], **harmless)

        assert (context.groups, context.roles, context.is_admin) == (("ops",), ("reader",), True)
        assert caplog.records == []

    @pytest.mark.parametrize("overage", [{"_claim_names": {"groups": "src1"}}, {"hasgroups": True}], ids=str)
    def test_groups_that_are_left_out_do_not_matter_where_roles_are_asked_for(self, overage):
        setting = IssuerSetting(issuer=ISSUER, group_claims=(("roles",),), admin_groups=("ops",))

        assert context_of(setting=setting, roles=["ops"], **overage).is_admin is True

    def test_an_administrator_by_name_stays_one(self):
        assert context_of("alice", setting=self.SETTING, hasgroups=True).is_admin is True


class TestRoles:
    """What follows from groups."""

    RIGHTS = Rights(
        {"reader": RoleSetting(tables={"log_entries": None}), "eu": RoleSetting(tables={"*": "region = 'eu'"})}, ["eu"]
    )
    SETTING = IssuerSetting(
        issuer=ISSUER, group_roles={"dev": ("reader", "gone"), "ops": ("reader",)}, admin_groups=("ops",)
    )

    def test_groups_give_roles_and_roles_give_tables(self):
        context = context_of(setting=self.SETTING, rights=self.RIGHTS, groups=["dev", "other"])

        assert context.roles == ("reader", "eu")
        assert context.table_access == TableAccess(filters={"*": ("region = 'eu'",), "log_entries": ()})

    def test_without_groups_only_the_default_roles_are_there(self):
        context = context_of(setting=self.SETTING, rights=self.RIGHTS)

        assert context.roles == ("eu",)
        assert context.table_access == TableAccess(filters={"*": ("region = 'eu'",)})

    def test_a_role_is_not_taken_from_the_token_itself(self):
        context = context_of(setting=self.SETTING, rights=Rights({"reader": RoleSetting()}), roles=["reader"])

        assert (context.groups, context.roles) == (("reader",), ())

    def test_an_administrators_group_reads_everything(self):
        context = context_of(setting=self.SETTING, rights=self.RIGHTS, groups=["ops"])

        assert (context.is_admin, context.roles, context.table_access) == (True, ("reader", "eu"), None)

    def test_without_configured_roles_everything_is_readable(self):
        context = context_of(setting=self.SETTING, groups=["dev"])

        assert (context.roles, context.table_access) == ((), None)

    def test_a_group_beyond_the_bound_gives_nothing(self):
        groups = [f"group{number}" for number in range(MAX_GROUPS)] + ["ops"]

        assert context_of(setting=self.SETTING, groups=groups).is_admin is False
