"""Keys that users make for themselves: who may, how many, for how long, and what ends them."""

import json
from datetime import timedelta

import pytest

from micromegas_jupyter.access.config import ReloadingValidator
from micromegas_jupyter.access.write_rights import MODEL_TABLES
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import (
    ConfigurationError,
    PermissionDenied,
    Rejected,
    ResourcesExhausted,
    Unavailable,
    UnsupportedRequest,
    UsageError,
)
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.unit.access.conftest import reason_of


class Server:
    """A validator with its files, and callers by their signed tokens."""

    def __init__(self, folder, **environ):
        self._config, self.keys, self._jwks = (folder / name for name in ("access.json", "keys.json", "jwks.json"))
        self._jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
        self.keys.write_text("[]")
        self._write()
        self.validator = ReloadingValidator({"MICROMEGAS_ACCESS_CONFIG": str(self._config), **environ})

    def _write(self, *, has_key_file=True, group_roles=None, **more):
        groups = {"group_roles": {"senders": ["sender"]} if group_roles is None else group_roles}
        issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(self._jwks), "groups_claim": ["groups"]}
        roles = {"sender": {"keys": "self"}, "reader": {"tables": ["*"]}}
        content = {"oidc": {"issuers": [issuer | groups]}, "roles": roles, "default_roles": ["reader"], **more}
        content |= {"api_key_file": str(self.keys)} if has_key_file else {}
        beside = self._config.with_name("beside")
        beside.write_text(json.dumps(content))
        beside.replace(self._config)

    def change(self, **more):
        self._write(**more)
        self.validator.reload()

    def act(self, who, operation, *, groups=("senders",), **members):
        now = int(SYSTEM_CLOCK.now().timestamp())
        token = mint(key=ec_key(), sub=who, groups=list(groups), iat=now, exp=now + 600)
        return self.act_as(self.validator.validate_token(token), operation, **members)

    def act_as(self, caller, operation, **members):
        keys = self.validator.user_keys
        return json.loads(keys.run(caller, keys.parse(json.dumps({"operation": operation, **members}).encode())))


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.validator.close()


def test_a_key_only_sends_to_the_tables_of_the_data_model(server):
    made = server.act("bob", "create", name="laptop", days=2)
    bearer = server.validator.validate_token(made["key"])

    assert (bearer.subject, bearer.owner, bearer.may_delegate) == ("bob/laptop", f"{ISSUER}|bob", False)
    assert bearer.scopes == {f"ingest:{name}" for name in MODEL_TABLES}
    assert bearer.write_access.ingest == MODEL_TABLES
    assert bearer.write_access.owns == frozenset()
    assert timedelta(days=1.9) < bearer.expires_at - SYSTEM_CLOCK.now() < timedelta(days=2.1)
    assert made["key"] not in server.keys.read_text()


def test_only_users_with_such_a_role_make_keys(server):
    for groups in ((), ("others",)):
        with pytest.raises(PermissionDenied):
            server.act("bob", "create", groups=groups)
    own = server.validator.validate_token(server.act("bob", "create")["key"])
    with pytest.raises(PermissionDenied):
        server.act_as(own, "create")
    assert len(json.loads(server.keys.read_text())) == 1


def test_users_have_five_valid_keys_and_see_and_revoke_only_theirs(server):
    made = [server.act("bob", "create") for _ in range(5)]
    with pytest.raises(ResourcesExhausted):
        server.act("bob", "create")
    other = server.act("eve", "create")

    assert server.act("eve", "revoke", id=made[0]["id"]) == {"revoked": False}
    assert server.act("bob", "revoke", id=made[0]["id"], groups=()) == {"revoked": True}
    assert reason_of(server.validator, made[0]["key"]) == "api_key_revoked"
    assert [one["state"] for one in server.act("bob", "list")["keys"]].count("valid") == 4
    assert [one["id"] for one in server.act("eve", "list")["keys"]] == [other["id"]]
    server.act("bob", "create")
    assert len(server.act("bob", "list")["keys"]) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"roles": {"sender": {"tables": ["*"]}, "reader": {"tables": ["*"]}}},
        {"group_roles": {"senders": ["reader"]}},
        {"group_roles": {"others": ["sender"]}},
        {"denied": [f"{ISSUER}|bob"]},
    ],
)
def test_a_key_is_invalid_once_its_owner_may_have_none(server, change):
    key = server.act("bob", "create")["key"]
    server.change(**change)
    assert reason_of(server.validator, key) == "api_key_owner_without_role"
    server.change()
    assert server.validator.validate_token(key).subject == "bob/default"


def test_a_key_of_a_default_role_ends_with_it(server):
    server.change(default_roles=["sender"])
    key = server.act("bob", "create", groups=())["key"]
    server.change()
    with pytest.raises(Rejected):
        server.validator.validate_token(key)


def test_a_key_ends_within_the_maximum(tmp_path):
    server = Server(tmp_path, MICROMEGAS_API_KEY_MAX_DAYS="7")
    with pytest.raises(PermissionDenied, match="7 days"):
        server.act("bob", "create", days=8)
    server.act("bob", "create", days=7)
    server.validator.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"operation": "x"}',
        b'{"operation": "create", "name": "a b"}',
        b'{"operation": "create", "days": 0}',
        b'{"operation": "list", "more": 1}',
        b'{"operation": "list", "id": "' + b"a" * 65 + b'"}',
    ],
)
def test_a_body_that_is_not_a_request_is_rejected(server, body):
    with pytest.raises(UsageError):
        server.validator.user_keys.parse(body)


def test_a_file_that_is_missing_or_cannot_be_used_is_an_error_without_its_path(server, caplog):
    server.keys.write_text("damaged")
    with pytest.raises(Unavailable) as caught:
        server.act("bob", "create")
    assert str(server.keys.parent) not in str(caught.value)
    assert "The file of API keys cannot be used." in caplog.messages
    server.keys.write_text("[]")
    server.change(has_key_file=False)
    with pytest.raises(UnsupportedRequest):
        server.act("bob", "create")


def test_the_right_is_written_as_self(server):
    with pytest.raises(ConfigurationError, match="keys"):
        server.change(roles={"sender": {"keys": "all"}, "reader": {"tables": ["*"]}})
