// A certified OpenID provider of another make (npm `oidc-provider`), configured for this project's tests.
//
// Started by tests/integration/other_provider/running.py. Its settings come as one JSON line on standard input; when it
// answers it prints one JSON line on standard output. Each further line holds other signing keys, says whether it hangs
// up on everybody, or asks for what was counted; it is answered with a line when that is so. It ends when standard input closes. Everything else goes to standard error.

import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider, errors } from "oidc-provider";

for (const level of ["log", "info", "warn"]) console[level] = console.error;

const input = createInterface({ input: process.stdin });
input.on("close", () => process.exit(0));
const settings = JSON.parse((await once(input, "line"))[0]);
const { clientId, hubClientId, serviceClientId, serviceSecret, serviceKey, resource, tokenLifetimeSeconds } = settings;

const PEOPLE = {
  alice: { name: "Alice Martin", email: "alice@example.com", email_verified: true, groups: ["lake-admins", "analysts"] },
  bob: { name: "Bob Singh", email: "bob@example.com", email_verified: true, groups: ["analysts"] },
};

const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const TOKEN_TYPE = "urn:ietf:params:oauth:token-type:";
// Whose tokens may be exchanged.
const EXCHANGED = new Set(["alice"]);

const server = createServer();
await new Promise((resolve) => server.listen(settings.port, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const LAKE = {
  scope: "lake",
  audience: resource,
  accessTokenFormat: "jwt",
  accessTokenTTL: tokenLifetimeSeconds,
  jwt: { sign: { alg: "RS256" } },
};

// A server's URL for agents, whose port is not known yet.
const AGENTS = /^http:\/\/127\.0\.0\.1:\d+\/mcp$/;

const makeProvider = (keys) => new Provider(issuer, {
  clients: [
    {
      client_id: clientId,
      client_name: "Micromegas notebooks",
      application_type: "native",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      // On loopback the port is the client's to choose. The third is where a person copies the address from, the last a
      // Jupyter server's.
      redirect_uris: [
        "http://127.0.0.1/callback",
        "http://localhost/callback",
        "http://127.0.0.1:48080/callback",
        "http://127.0.0.1/micromegas/callback",
        "http://127.0.0.1/services/micromegas/callback",
      ],
      post_logout_redirect_uris: ["http://127.0.0.1/"],
    },
    {
      client_id: hubClientId,
      client_name: "JupyterHub",
      client_secret: serviceSecret,
      application_type: "native",
      token_endpoint_auth_method: "client_secret_post",
      grant_types: ["authorization_code", "refresh_token", TOKEN_EXCHANGE],
      response_types: ["code"],
      redirect_uris: ["http://127.0.0.1/hub/oauth_callback"],
    },
    ...["client_secret_basic", "client_secret_post"].map((method) => ({
      client_id: method === "client_secret_basic" ? serviceClientId : `${serviceClientId}-post`,
      client_secret: serviceSecret,
      token_endpoint_auth_method: method,
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
    })),
    {
      client_id: `${serviceClientId}-key`,
      token_endpoint_auth_method: "private_key_jwt",
      token_endpoint_auth_signing_alg: serviceKey.alg,
      jwks: { keys: [serviceKey] },
      grant_types: ["client_credentials", "urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      response_types: [],
      redirect_uris: [],
    },
  ],
  claims: {
    openid: ["sub"],
    profile: ["name", "groups"],
    groups: ["groups"],
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
        if (AGENTS.test(indicator)) return { ...LAKE, audience: indicator };
        if (indicator !== resource) throw new errors.InvalidTarget();
        return LAKE;
      },
      useGrantedResource: () => true,
    },
  },
  findAccount: (ctx, id) =>
    PEOPLE[id] && { accountId: id, claims: () => ({ sub: `other-${id}`, ...PEOPLE[id] }) },
  jwks: { keys },
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

// Token exchange (RFC 8693), which `oidc-provider` leaves to whoever runs it: a token that was made for the application
// that asks, for an access token of the same person for the resource.
function offerExchange(provider) {
  provider.registerGrantType(
    TOKEN_EXCHANGE,
    async (ctx) => {
      const { client, params } = ctx.oidc;
      const accountId = await personOf(provider, client, params);
      if (!PEOPLE[accountId]) throw new errors.InvalidRequest("the subject token is not valid");
      if (params.resource !== resource) throw new errors.InvalidTarget();
      if (!EXCHANGED.has(accountId)) throw new errors.InvalidTarget("not for this person");
      const token = new provider.AccessToken({ accountId, client, gty: "token_exchange", scope: "lake" });
      token.resourceServer = new provider.ResourceServer(resource, LAKE);
      counts.exchanges += 1;
      ctx.body = {
        access_token: await token.save(),
        issued_token_type: `${TOKEN_TYPE}access_token`,
        token_type: token.tokenType,
        expires_in: token.expiration,
      };
    },
    ["resource", "audience", "scope", "subject_token", "subject_token_type"],
  );
  return provider;
}

async function personOf(provider, client, { subject_token: text, subject_token_type: type }) {
  if (type === `${TOKEN_TYPE}access_token`) {
    const found = await provider.AccessToken.find(text);
    return found?.clientId === client.clientId ? found.accountId : undefined;
  }
  if (type !== `${TOKEN_TYPE}id_token`) throw new errors.InvalidRequest("no type of subject token that is known here");
  try {
    const { payload } = await provider.IdToken.validate(text, client);
    return payload.exp > Date.now() / 1000 ? payload.sub : undefined;
  } catch {
    return undefined;
  }
}

const counts = { renewals: 0, reuses: 0, exchanges: 0, hangUps: 0 };

// An outage: whoever connects is hung up on, and counted.
let isOut = false;
server.on("connection", (socket) => {
  if (!isOut) return;
  counts.hangUps += 1;
  socket.destroy();
});

function count(provider) {
  provider.on("grant.success", (ctx) => {
    if (ctx.oidc.params.grant_type === "refresh_token") counts.renewals += 1;
  });
  provider.on("grant.error", (ctx, error) => {
    if (error.error_detail === "refresh token already used") counts.reuses += 1;
  });
  return provider;
}

// What was issued is kept outside the provider object, so a new one with other keys goes on where the last one stopped.
function serve(keys) {
  const answer = count(offerExchange(makeProvider(keys))).callback();
  server.removeAllListeners("request");
  server.on("request", answer);
  process.stdout.write(`${JSON.stringify({ issuer })}\n`);
}

serve(settings.keys);
input.on("line", (line) => {
  const { keys, out } = JSON.parse(line);
  if (out !== undefined) {
    isOut = out;
    server.closeAllConnections();
  }
  if (keys) serve(keys);
  else process.stdout.write(`${JSON.stringify(counts)}\n`);
});
