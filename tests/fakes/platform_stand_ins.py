"""Stand-ins for platforms and token endpoints that cannot run here, on loopback and over real HTTP.

They were written from the vendors' documents and are as strict as those; they were not tried against the vendors:

- GitHub Docs, "OpenID Connect reference", and the runner's toolkit;
- Google Cloud, "Verify VM identity" and "Metadata server"; "Using OAuth 2.0 for Server to Server Applications", and
  the client libraries for `target_audience`;
- Microsoft Learn, "How to use managed identities on an Azure VM to acquire an access token", "Managed identities for
  App Service" and "Workload identity federation";
- RFC 7523 and RFC 8693.
"""

import base64
import json
import threading

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.loopback_http import FORM_TYPE, LoopbackHttp, Reply
from tests.fakes.mint import mint_raw, rsa_key

EMAIL = "reporter@example-project.iam.gserviceaccount.com"
GOOGLE_ISSUER = "https://accounts.google.com"
PLATFORM_KEY = rsa_key("platform")


class StandIn(LoopbackHttp):
    """A context manager that serves at `base`; every call is kept, and the next answer may be replaced.

    A call that breaks one of the rules asserted in `answer` gets status 400.
    """

    def __init__(self, *, clock=SYSTEM_CLOCK):
        super().__init__(clock=clock)
        self.calls = []
        self.lifetime_seconds = 3600
        self._replacements = []
        self._lock = threading.Lock()

    def reply_once(self, reply):
        self._replacements.append(reply)

    def handle(self, call):
        assert call.method != "POST" or call.headers["content-type"] == FORM_TYPE
        assert call.body.count(b"=") == len(call.form), "a parameter came twice"
        with self._lock:
            self.calls.append(call)
            try:
                return self._replacements.pop(0) if self._replacements else self.answer(call)
            except (AssertionError, KeyError):
                return Reply(status=400, body={"error": "invalid_request"})

    def answer(self, call):
        raise NotImplementedError

    def now_seconds(self):
        return int(self.clock.now().timestamp())

    def mint(self, *, issuer, subject, audience, **claims):
        now = self.now_seconds()
        times = {"iat": now, "exp": now + self.lifetime_seconds, "jti": f"{len(self.calls)}"}
        content = {"iss": issuer, "sub": subject, "aud": audience, **times, **claims}
        return mint_raw(json.dumps(content).encode(), key=PLATFORM_KEY)


def verified_claims(token, key, *, key_id):
    """Return the claims of a token that the RSA key signed with RS256; None when it did not."""
    public = key.private.public_key()
    try:
        head, body, signature = token.split(".")
        header = json.loads(_decoded(head))
        if header != {"alg": "RS256", "typ": "JWT", "kid": key_id}:
            return None
        public.verify(_decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(_decoded(body))
    except (ValueError, InvalidSignature):
        return None
    return claims if isinstance(claims, dict) else None


def _decoded(segment):
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


REQUEST_TOKEN = "runner-request-token-0123456789"
APP_HEADER = "app-header-secret-0123456789"
IDENTITY_CLIENT_ID = "11111111-2222-3333-4444-555555555555"


class GithubRunner(StandIn):
    """The address at which a job of GitHub Actions gets its token."""

    def environ(self):
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.base}/idtoken?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        }

    def answer(self, call):
        assert call.headers["authorization"] == f"Bearer {REQUEST_TOKEN}"
        assert (call.method, call.path, call.query["api-version"]) == ("GET", "/idtoken", "2.0")
        token = self.mint(
            issuer="https://token.actions.githubusercontent.com",
            subject="repo:example/lake:ref:refs/heads/main",
            audience=call.query.get("audience", "https://github.com/example"),
            repository_owner_id="42",
        )
        return Reply(body={"count": len(token), "value": token})


class GoogleMetadataServer(StandIn):
    """The metadata server of a machine with a service account."""

    def environ(self):
        return {"GCE_METADATA_HOST": self.base.removeprefix("http://")}

    def answer(self, call):
        assert call.path == "/computeMetadata/v1/instance/service-accounts/default/identity"
        assert (call.headers["metadata-flavor"], "x-forwarded-for" in call.headers) == ("Google", False)
        assert call.query.get("format", "standard") in {"standard", "full"}
        audience = call.query["audience"]
        token = self.mint(issuer=GOOGLE_ISSUER, subject="1234567890", audience=audience, azp="1234567890", email=EMAIL)
        return Reply(text=token, headers={"Metadata-Flavor": "Google", "Content-Type": "text/html"})


class AzureMachine(StandIn):
    """The instance metadata service of a virtual machine with a managed identity."""

    def environ(self):
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.base}

    def answer(self, call):
        assert (call.path, call.query["api-version"]) == ("/metadata/identity/oauth2/token", "2018-02-01")
        assert (call.headers["metadata"], "x-forwarded-for" in call.headers) == ("true", False)
        return _azure_answer(self, call, expires_in=str(self.lifetime_seconds), refresh_token="")


class AzureApp(StandIn):
    """The identity endpoint of App Service, Functions and Container Apps."""

    def environ(self):
        return {"IDENTITY_ENDPOINT": f"{self.base}/MSI/token/", "IDENTITY_HEADER": APP_HEADER}

    def answer(self, call):
        assert (call.path, call.query["api-version"]) == ("/MSI/token/", "2019-08-01")
        assert call.headers["x-identity-header"] == APP_HEADER
        return _azure_answer(self, call, client_id=IDENTITY_CLIENT_ID)


def _azure_answer(stand_in, call, **members):
    assert call.query.get("client_id", IDENTITY_CLIENT_ID) == IDENTITY_CLIENT_ID
    now, resource = stand_in.now_seconds(), call.query["resource"]
    issuer = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
    token = stand_in.mint(issuer=issuer, subject=IDENTITY_CLIENT_ID, audience=resource, azp=IDENTITY_CLIENT_ID)
    times = {"expires_on": str(now + stand_in.lifetime_seconds), "not_before": str(now)}
    return Reply(body={"access_token": token, "token_type": "Bearer", "resource": resource, **times, **members})


KEY_ID = "4f3c2b1a"


class GoogleTokenEndpoint(StandIn):
    """Google's token endpoint, which knows one service account with one key."""

    def __init__(self, *, clock=SYSTEM_CLOCK):
        super().__init__(clock=clock)
        self.key = rsa_key("service-account")
        self.token_uri = f"{self.base}/token"

    def key_file(self, **changes):
        """Return the content of the service account's key file; a change to None removes a member."""
        private = self.key.private
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        members = {
            "type": "service_account",
            "project_id": "example-project",
            "private_key_id": KEY_ID,
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1234567890",
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
            **changes,
        }
        return json.dumps({name: value for name, value in members.items() if value is not None})

    def answer(self, call):
        assert (call.method, call.path) == ("POST", "/token")
        assert call.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        claims = verified_claims(call.form["assertion"], self.key, key_id=KEY_ID)
        if claims is None:
            return _refused("Invalid JWT Signature.")
        issued_at, audience = claims["iat"], claims.get("target_audience")
        assert (claims["iss"], claims["aud"], "sub" in claims) == (EMAIL, self.token_uri, False)
        assert type(issued_at) is type(claims["exp"]) is int
        assert 0 < claims["exp"] - issued_at <= 3600
        if abs(self.now_seconds() - issued_at) > 300:
            return _refused("Invalid JWT: Token must be in a reasonable timeframe. Check your iat and exp values.")
        assert (audience is None) == ("scope" in claims)
        if audience is None:
            text = f"ya29.opaque-{len(self.calls)}"
            return Reply(body={"access_token": text, "expires_in": 3599, "token_type": "Bearer"})
        return Reply(
            body={"id_token": self.mint(issuer=GOOGLE_ISSUER, subject="1234567890", audience=audience, email=EMAIL)}
        )


class ExchangingProvider(StandIn):
    """A provider that trusts the platform's tokens: token exchange, and client credentials with a client assertion."""

    client_id = "lake-service"

    def __init__(self, *, trusted_audience=None, clock=SYSTEM_CLOCK):
        super().__init__(clock=clock)
        self.issuer = self.base
        self.trusted_audience = trusted_audience or self.issuer

    def token_calls(self):
        return [call for call in self.calls if call.path == "/token"]

    def answer(self, call):
        if call.path == "/.well-known/openid-configuration":
            paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            endpoints = {name: f"{self.base}/{path}" for name, path in paths.items()}
            return Reply(body={"issuer": self.issuer, **endpoints, "code_challenge_methods_supported": ["S256"]})
        assert (call.method, call.path, "authorization" in call.headers) == ("POST", "/token", False)
        if call.form["grant_type"] == "client_credentials":
            return self._client_credentials(call.form)
        assert call.form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert call.form["client_id"] == self.client_id
        assert call.form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"
        assert (call.form.get("audience") or call.form["resource"]) == "lake"
        claims = self._trusted(call.form["subject_token"])
        if claims is None:
            return _refused("The subject token is not acceptable.")
        return self._granted(claims["sub"], issued_token_type="urn:ietf:params:oauth:token-type:access_token")

    def _client_credentials(self, form):
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert form["scope"].endswith("/.default")
        if form["client_id"] != self.client_id or self._trusted(form["client_assertion"]) is None:
            return Reply(status=401, body={"error": "invalid_client", "error_description": "AADSTS700016: not found"})
        return self._granted(self.client_id)

    def _granted(self, subject, **more):
        token = self.mint(issuer=self.issuer, subject=subject, audience="lake")
        body = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime_seconds, **more}
        return Reply(body=body)

    def _trusted(self, token):
        claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
        is_good = claims is not None and claims["aud"] == self.trusted_audience and claims["exp"] > self.now_seconds()
        return claims if is_good else None


def _refused(description):
    return Reply(status=400, body={"error": "invalid_grant", "error_description": description})
