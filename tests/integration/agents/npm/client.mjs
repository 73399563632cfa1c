// The official TypeScript SDKs' clients, 1.x and 2.x, as programs use them.
//
// The first line of standard input is a JSON list of tasks. Each one connects over HTTP with a token, over HTTP with a
// sign-in, or over stdio, runs its statements, and prints its outcomes as one line. For a sign-in, a line with the
// address to open is printed first; the next line of standard input is the address that the browser is sent back to.

import { once } from "node:events";
import { createInterface } from "node:readline";
import * as two from "@modelcontextprotocol/client";
import { StdioClientTransport as StdioTwo } from "@modelcontextprotocol/client/stdio";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as StdioOne } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const SDKS = {
  1: { Client, Http: StreamableHTTPClientTransport, Stdio: StdioOne, options: {} },
  2: { Client: two.Client, Http: two.StreamableHTTPClientTransport, Stdio: StdioTwo,
       options: { versionNegotiation: { mode: "auto" } } },
};
const lines = createInterface({ input: process.stdin });
const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

// Remembers in memory what an agent's program stores.
class SignIn {
  constructor({ clientId, clientMetadataUrl, redirectUri }) {
    Object.assign(this, { clientMetadataUrl, redirectUrl: redirectUri, redirected: undefined });
    this.client = clientId && { client_id: clientId };
    this.clientMetadata = { client_name: "An agent", redirect_uris: [redirectUri], token_endpoint_auth_method: "none" };
  }
  state() { return "a-state"; }
  clientInformation() { return this.client; }
  saveClientInformation(found) { this.client = found; }
  tokens() { return this.saved; }
  saveTokens(found) { this.saved = found; }
  codeVerifier() { return this.verifier; }
  saveCodeVerifier(found) { this.verifier = found; }
  async redirectToAuthorization(url) {
    const line = once(lines, "line");
    print({ open: String(url) });
    this.redirected = new URL((await line)[0]).searchParams;
  }
}

async function connect(task) {
  const sdk = SDKS[task.sdk];
  const makeClient = () => new sdk.Client({ name: "agent", version: "1" }, sdk.options);
  const client = makeClient();
  if (task.command) {
    await client.connect(new sdk.Stdio({ ...task.command, stderr: "ignore" }));
    return client;
  }
  const url = new URL(task.url);
  if (task.token) {
    await client.connect(new sdk.Http(url, { requestInit: { headers: { Authorization: `Bearer ${task.token}` } } }));
    return client;
  }
  const authProvider = new SignIn(task.signIn);
  const first = new sdk.Http(url, { authProvider });
  try {
    await client.connect(first);
  } catch (error) {
    if (!authProvider.redirected) throw error;
  }
  const answer = authProvider.redirected;
  await first.finishAuth(task.sdk === 2 ? answer : answer.get("code"));
  const second = makeClient();
  await second.connect(new sdk.Http(url, { authProvider }));
  return second;
}

const tasks = JSON.parse((await once(lines, "line"))[0]);
for (const task of tasks) {
  const client = await connect(task);
  const outcomes = [];
  for (const sql of task.statements) {
    const { structuredContent: found } = await client.callTool({ name: "query", arguments: { sql, begin: "all" } });
    outcomes.push(found.error ? found.error.code : found.rows);
  }
  await client.close();
  print({ outcomes });
}
process.exit(0);
