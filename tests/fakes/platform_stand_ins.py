"""Stand-ins for platforms that cannot run here, on loopback and over real HTTP.

They were written from the vendors' documents and are as strict as those; they were not tried against the vendors:

- GitHub Docs, "OpenID Connect reference", and the runner's toolkit;
- Google Cloud, "Verify VM identity" and "Metadata server";
- Microsoft Learn, "How to use managed identities on an Azure VM to acquire an access token" and "Managed identities
  for App Service".
"""

from __future__ import annotations

from tests.fakes.scripted_http import Reply, Seen
from tests.fakes.stand_in import EMAIL, GOOGLE_ISSUER, StandIn

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITHUB_SUBJECT = "repo:example/lake:ref:refs/heads/main"
REQUEST_TOKEN = "runner-request-token-0123456789"
APP_HEADER = "app-header-secret-0123456789"
IDENTITY_CLIENT_ID = "11111111-2222-3333-4444-555555555555"


class GithubRunner(StandIn):
    """The address at which a job of GitHub Actions gets its token."""

    def environ(self) -> dict[str, str]:
        """Return the variables of a job that may have a token."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.base}/idtoken?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        }

    def answer(self, call: Seen) -> Reply:
        """Give a token to whoever has the request token."""
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

    def environ(self) -> dict[str, str]:
        """Return the variable that leads here."""
        return {"GCE_METADATA_HOST": self.base.removeprefix("http://")}

    def answer(self, call: Seen) -> Reply:
        """Give an ID token for the audience."""
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

    def environ(self) -> dict[str, str]:
        """Return the variable that leads here."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.base}

    def answer(self, call: Seen) -> Reply:
        """Give an access token for the resource; all numbers are text."""
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
        return Reply(
            body={
                "access_token": _azure_token(self, resource),
                "refresh_token": "",
                "expires_in": str(self.lifetime_seconds),
                "expires_on": str(now + self.lifetime_seconds),
                "not_before": str(now),
                "resource": resource,
                "token_type": "Bearer",
            }
        )


class AzureApp(StandIn):
    """The identity endpoint of App Service, Functions and Container Apps."""

    def environ(self) -> dict[str, str]:
        """Return the variables of an app with an identity."""
        return {"IDENTITY_ENDPOINT": f"{self.base}/MSI/token/", "IDENTITY_HEADER": APP_HEADER}

    def answer(self, call: Seen) -> Reply:
        """Give an access token for the resource, and say only until when it holds."""
        if call.headers.get("x-identity-header") != APP_HEADER:
            return Reply(status=401, body={"statusCode": 401, "message": "No identity header"})
        if (call.path, call.query.get("api-version")) != ("/MSI/token/", "2019-08-01"):
            return Reply(status=404, body={"statusCode": 404, "message": "Not found"})
        resource = call.query.get("resource")
        if not resource or call.query.get("client_id", IDENTITY_CLIENT_ID) != IDENTITY_CLIENT_ID:
            return Reply(status=400, body={"statusCode": 400, "message": "Unable to load the proper Managed Identity."})
        return Reply(
            body={
                "access_token": _azure_token(self, resource),
                "client_id": IDENTITY_CLIENT_ID,
                "expires_on": str(self.now_seconds() + self.lifetime_seconds),
                "not_before": str(self.now_seconds()),
                "resource": resource,
                "token_type": "Bearer",
            }
        )


def _azure_token(stand_in: StandIn, resource: str) -> str:
    issuer = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
    return stand_in.mint(issuer=issuer, subject=IDENTITY_CLIENT_ID, audience=resource, azp=IDENTITY_CLIENT_ID)


def _azure_error(code: str, description: str) -> Reply:
    return Reply(status=400, body={"error": code, "error_description": description})
