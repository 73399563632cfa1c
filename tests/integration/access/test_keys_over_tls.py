"""Keys behind certificates and a token of their own, as a cluster's API server publishes them."""

from contextlib import nullcontext

import pytest

from micromegas_jupyter.access import Unavailable
from micromegas_jupyter.access.jwks import KeyCaches, KeyPolicy, KeysPending
from micromegas_jupyter.config.issuers import IssuerSetting
from micromegas_jupyter.core.http import ProviderHttp
from tests.fakes.loopback_http import Reply
from tests.fakes.mint import ec_key
from tests.fakes.tls_provider import TlsProvider

pytestmark = pytest.mark.integration

ISSUER = "https://kubernetes.default.svc.cluster.local"


class Cluster(TlsProvider):
    """Shows its documents over TLS to whoever brings the token."""

    def handle(self, seen):
        base = self.url.removesuffix("/document")
        documents = {
            "/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{base}/openid/v1/jwks"},
            "/openid/v1/jwks": {"keys": [ec_key().jwk()]},
        }
        is_allowed = seen.headers.get("authorization") == "Bearer sesame"
        return Reply(body=documents[seen.path]) if is_allowed else Reply(status=401, body={"kind": "Status"})


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path) as running:
        yield running


@pytest.fixture
def caches(clock):
    http = ProviderHttp()
    made = KeyCaches(http=http, clock=clock)
    yield made
    made.close()
    http.close()


def keys_of(source):
    try:
        return source.get()
    except KeysPending as pending:
        pending.fetch.result(60)
        return source.get()


@pytest.mark.parametrize(("missing", "expected"), [(None, ["ec"]), ("bearer_token_file", None), ("ca_file", None)])
def test_keys_come_with_the_certificates_and_the_token(cluster, caches, tmp_path, missing, expected):
    (tmp_path / "token").write_text("sesame\n")
    files = {"ca_file": str(cluster.ca_file), "bearer_token_file": str(tmp_path / "token")}
    files = {name: path for name, path in files.items() if name != missing}
    url = cluster.url.replace("/document", "/.well-known/openid-configuration")
    setting = IssuerSetting(issuer=ISSUER, discovery_url=url, **files)

    with nullcontext() if expected else pytest.raises(Unavailable):
        assert [key.key_id for key in keys_of(caches.cache_of(setting, KeyPolicy())).keys] == expected
