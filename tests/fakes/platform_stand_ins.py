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
    """A context manager that serves at `base`; every call is kept, and the next answer may be replaced."""

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
            return self._replacements.pop(0) if self._replacements else self.answer(call)

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


GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITHUB_SUBJECT = "repo:example/lake:ref:refs/heads/main"
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
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        if (scheme.lower(), given) != ("bearer", REQUEST_TOKEN):
            return Reply(status=401, body={"message": "unauthorized"})
        if (call.method, call.path, call.query.get("api-version")) != ("GET", "/idtoken", "2.0"):
            return Reply(status=404, body={"message": "not found"})
        audience = call.query.get("audience", "https://github.com/example")
        token = self.mint(
            issuer=GITHUB_ISSUER, subject=GITHUB_SUBJECT, audience=audience, repository_owner_id="42", ref="main"
        )
        return Reply(body={"count": len(token), "value": token})


class GoogleMetadataServer(StandIn):
    """The metadata server of a machine with a service account."""

    has_service_account = True

    def environ(self):
        return {"GCE_METADATA_HOST": self.base.removeprefix("http://")}

    def answer(self, call):
        flavor = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM", "Content-Type": "text/html"}
        if call.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in call.headers:
            return Reply(status=403, text="Missing Metadata-Flavor:Google header.", headers=flavor)
        if call.path != "/computeMetadata/v1/instance/service-accounts/default/identity":
            return Reply(status=404, text="not found", headers=flavor)
        if not self.has_service_account:
            return Reply(status=404, text="The service account was not found.", headers=flavor)
        audience = call.query.get("audience")
        if not audience or call.query.get("format", "standard") not in {"standard", "full"}:
            return Reply(status=400, text="non-empty audience parameter required", headers=flavor)
        token = self.mint(issuer=GOOGLE_ISSUER, subject="1234567890", audience=audience, azp="1234567890", email=EMAIL)
        return Reply(text=token, headers=flavor)


class AzureMachine(StandIn):
    """The instance metadata service of a virtual machine with a managed identity."""

    def environ(self):
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.base}

    def answer(self, call):
        if call.headers.get("metadata") != "true" or "x-forwarded-for" in call.headers:
            return _azure_error("invalid_request", "Required metadata header not specified")
        if (call.path, call.query.get("api-version")) != ("/metadata/identity/oauth2/token", "2018-02-01"):
            return _azure_error("bad_request_102", "The api-version is not supported")
        resource = call.query.get("resource")
        if not resource:
            return _azure_error("invalid_request", "Required query variable 'resource' is missing")
        if call.query.get("client_id", IDENTITY_CLIENT_ID) != IDENTITY_CLIENT_ID:
            return _azure_error("invalid_request", "Identity not found")
        now = self.now_seconds()
        times = {"expires_in": self.lifetime_seconds, "expires_on": now + self.lifetime_seconds, "not_before": now}
        token = {"access_token": _azure_token(self, resource), "refresh_token": "", "token_type": "Bearer"}
        return Reply(body={**token, **{name: str(number) for name, number in times.items()}, "resource": resource})


class AzureApp(StandIn):
    """The identity endpoint of App Service, Functions and Container Apps."""

    def environ(self):
        return {"IDENTITY_ENDPOINT": f"{self.base}/MSI/token/", "IDENTITY_HEADER": APP_HEADER}

    def answer(self, call):
        if call.headers.get("x-identity-header") != APP_HEADER:
            return Reply(status=401, body={"statusCode": 401, "message": "No identity header"})
        if (call.path, call.query.get("api-version")) != ("/MSI/token/", "2019-08-01"):
            return Reply(status=404, body={"statusCode": 404, "message": "Not found"})
        resource = call.query.get("resource")
        if not resource or call.query.get("client_id", IDENTITY_CLIENT_ID) != IDENTITY_CLIENT_ID:
            return Reply(status=400, body={"statusCode": 400, "message": "Unable to load the proper Managed Identity."})
        now = self.now_seconds()
        token = {"access_token": _azure_token(self, resource), "client_id": IDENTITY_CLIENT_ID, "token_type": "Bearer"}
        times = {"expires_on": str(now + self.lifetime_seconds), "not_before": str(now)}
        return Reply(body={**token, **times, "resource": resource})


def _azure_token(stand_in, resource):
    issuer = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
    return stand_in.mint(issuer=issuer, subject=IDENTITY_CLIENT_ID, audience=resource, azp=IDENTITY_CLIENT_ID)


def _azure_error(code, description):
    return Reply(status=400, body={"error": code, "error_description": description})


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
        if (call.method, call.path) != ("POST", "/token"):
            return Reply(status=404, body={"error": "not_found"})
        if call.form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return Reply(status=400, body={"error": "unsupported_grant_type"})
        claims = verified_claims(call.form.get("assertion", ""), self.key, key_id=KEY_ID)
        if claims is None:
            return _refused("Invalid JWT Signature.")
        problem = self._problem_of(claims)
        return self._granted(claims) if problem is None else _refused(problem)

    def _problem_of(self, claims):
        now, issued_at, expires_at = self.now_seconds(), claims.get("iat"), claims.get("exp")
        if claims.get("iss") != EMAIL or claims.get("aud") != self.token_uri or "sub" in claims:
            return "Invalid JWT: issuer, subject or audience."
        if type(issued_at) is not int or type(expires_at) is not int or not 0 < expires_at - issued_at <= 3600:
            return "Invalid JWT: Token must be a short-lived token (60 minutes)."
        if not now - 300 <= issued_at <= now + 300:
            return "Invalid JWT: Token must be in a reasonable timeframe. Check your iat and exp values."
        return None

    def _granted(self, claims):
        audience, scope = claims.get("target_audience"), claims.get("scope")
        if (audience is None) == (scope is None):
            return Reply(status=400, body={"error": "invalid_scope", "error_description": "Invalid OAuth scope."})
        if audience is not None:
            token = self.mint(issuer=GOOGLE_ISSUER, subject="1234567890", audience=audience, email=EMAIL)
            return Reply(body={"id_token": token})
        text = f"ya29.opaque-{len(self.calls)}"
        return Reply(body={"access_token": text, "expires_in": 3599, "token_type": "Bearer"})


class ExchangingProvider(StandIn):
    """A provider that trusts the platform's tokens: token exchange, and client credentials with a client assertion."""

    client_id = "lake-service"

    def __init__(self, *, trusted_audience=None, clock=SYSTEM_CLOCK, client_secret=None):
        super().__init__(clock=clock)
        self.issuer = self.base
        self.trusted_audience = trusted_audience or self.issuer
        self.client_secret = client_secret

    def token_calls(self):
        return [call for call in self.calls if call.path == "/token"]

    def answer(self, call):
        if call.path == "/.well-known/openid-configuration":
            paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            endpoints = {name: f"{self.base}/{path}" for name, path in paths.items()}
            return Reply(body={"issuer": self.issuer, **endpoints, "code_challenge_methods_supported": ["S256"]})
        if (call.method, call.path) != ("POST", "/token"):
            return Reply(status=404, body={"error": "not_found"})
        match call.form.get("grant_type"):
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                return self._exchange(call)
            case "client_credentials":
                return self._client_credentials(call)
            case _:
                return Reply(status=400, body={"error": "unsupported_grant_type"})

    def _exchange(self, call):
        if not self._is_authenticated(call):
            return Reply(status=401, body={"error": "invalid_client"})
        if call.form.get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt":
            return Reply(status=400, body={"error": "invalid_request"})
        claims = self._trusted(call.form.get("subject_token", ""))
        if claims is None:
            return _refused("The subject token is not acceptable.")
        if (call.form.get("audience") or call.form.get("resource")) != "lake":
            return Reply(status=400, body={"error": "invalid_target"})
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return self._granted(str(claims["sub"]), issued_token_type=kind)

    def _granted(self, subject, **more):
        token = self.mint(issuer=self.issuer, subject=subject, audience="lake")
        body = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime_seconds, **more}
        return Reply(body=body)

    def _client_credentials(self, call):
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if call.form.get("client_assertion_type") != kind or "authorization" in call.headers:
            return Reply(status=401, body={"error": "invalid_client"})
        claims = self._trusted(call.form.get("client_assertion", ""))
        if claims is None or call.form.get("client_id") != self.client_id:
            return Reply(status=401, body={"error": "invalid_client", "error_description": "AADSTS700016: not found"})
        if not call.form.get("scope", "").endswith("/.default"):
            return Reply(status=400, body={"error": "invalid_scope"})
        return self._granted(self.client_id)

    def _trusted(self, token):
        claims = verified_claims(token, PLATFORM_KEY, key_id=PLATFORM_KEY.kid)
        if claims is None or claims.get("aud") != self.trusted_audience:
            return None
        expires_at = claims.get("exp")
        return claims if isinstance(expires_at, int) and expires_at > self.now_seconds() else None

    def _is_authenticated(self, call):
        if self.client_secret is None:
            return call.form.get("client_id") == self.client_id and "authorization" not in call.headers
        expected = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
        return call.headers.get("authorization") == f"Basic {expected}"


def _refused(description):
    return Reply(status=400, body={"error": "invalid_grant", "error_description": description})
