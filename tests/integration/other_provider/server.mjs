// A certified OpenID provider of another make (npm `oidc-provider`), configured for this project's tests.
//
// Started by tests/integration/other_provider/running.py. Its settings come as one JSON line on standard input; when it
// answers it prints one JSON line on standard output; it ends when standard input closes. Everything else goes to
// standard error.

import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider, errors } from "oidc-provider";

for (const level of ["log", "info", "warn"]) console[level] = console.error;

const input = createInterface({ input: process.stdin });
input.on("close", () => process.exit(0));
const settings = JSON.parse((await once(input, "line"))[0]);
const { clientId, serviceClientId, serviceSecret, resource, tokenLifetimeSeconds } = settings;

const PEOPLE = {
  alice: { name: "Alice Martin", email: "alice@example.com", email_verified: true, groups: ["lake-admins", "analysts"] },
  bob: { name: "Bob Singh", email: "bob@example.com", email_verified: true, groups: ["analysts"] },
};

const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: clientId,
      client_name: "Micromegas notebooks",
      application_type: "native",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      redirect_uris: ["http://127.0.0.1/callback", "http://localhost/callback"],
      post_logout_redirect_uris: ["http://127.0.0.1/"],
    },
    ...["client_secret_basic", "client_secret_post"].map((method) => ({
      client_id: method === "client_secret_basic" ? serviceClientId : `${serviceClientId}-post`,
      client_secret: serviceSecret,
      token_endpoint_auth_method: method,
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
    })),
  ],
  claims: {
    openid: ["sub"],
    profile: ["name", "groups"],
    email: ["email", "email_verified"],
  },
  // The claims of the scopes in the ID token itself, as this project's servers read them.
  conformIdTokenClaims: false,
  cookies: { keys: [settings.cookieKey] },
  pkce: { required: () => true },
  scopes: ["openid", "offline_access", "lake"],
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx, client, oneOf) =>
        oneOf ?? (client.clientId.startsWith(serviceClientId) ? resource : undefined),
      getResourceServerInfo: (ctx, indicator) => {
        if (indicator !== resource) throw new errors.InvalidTarget();
        return {
          scope: "lake",
          audience: resource,
          accessTokenFormat: "jwt",
          accessTokenTTL: tokenLifetimeSeconds,
          jwt: { sign: { alg: "RS256" } },
        };
      },
      useGrantedResource: () => true,
    },
  },
  findAccount: (ctx, id) =>
    PEOPLE[id] && { accountId: id, claims: () => ({ sub: `other-${id}`, ...PEOPLE[id] }) },
  jwks: { keys: settings.keys },
  ttl: {
    AccessToken: tokenLifetimeSeconds,
    ClientCredentials: tokenLifetimeSeconds,
    IdToken: tokenLifetimeSeconds,
    AuthorizationCode: 60,
    DeviceCode: 600,
    Grant: 86400,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 86400,
  },
});

server.on("request", provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
