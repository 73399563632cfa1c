// What the identity widget says in each state: pure functions from the kernel's traits to a description of the view.
// `identity.js`, which is joined behind this file, draws it.

const WRAPPED =
  "MICROMEGAS_PYTHON_MODULE_WRAPPER is set: it signs in by itself, and a sign-in here would change nothing.";
const LOST = "The kernel restarted or ended, so nobody keeps this up to date. Run the cell again.";
const SECOND = 1;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
// A token that nobody renews: how long before its end a person is warned.
const ENDING_SOON = 5 * MINUTE;

const BUTTONS = {
  sign_in: { text: "Sign in", hint: "Begin to sign in; the next step appears here", working: "Starting the sign-in…" },
  show_code: { text: "Show a code", hint: "Sign in on another device by typing a code", working: "Asking for a code…" },
  cancel: { text: "Cancel", hint: "End this sign-in", working: "Ending the sign-in…" },
  refresh: { text: "Refresh", hint: "Renew the token now and ask the server again", working: "Refreshing…" },
  sign_out: { text: "Sign out", hint: "For all notebooks and terminals of this machine", working: "Signing out…" },
};

// `at` holds seconds: `remaining`, `untilRenewal` (null where there is no such end), and `since` the status changed.
function describe(model, at, { opened, isLost }) {
  if (isLost) return { status: "lost", title: "No longer connected to the kernel.", detail: LOST, actions: [] };
  const [server, detail, actions] = ["server", "detail", "actions"].map((name) => model.get(name));
  const status = model.get("status");
  const isOver = at.remaining !== null && at.remaining <= 0;
  switch (status) {
    case "waiting":
      return isOver ? overdue(model) : waiting(model, at.remaining, opened);
    case "signed_in":
    case "renewal_failed":
    case "offline":
      if (isOver && !model.get("renews")) return { status: "expired", title: ended(model), actions: ["sign_in"] };
      return signedIn(model, at, isOver);
    case "expired":
      return { status, title: ended(model), detail, clock: at.since === null ? "" : `ended ${ago(at.since)}`, actions };
    case "not_configured":
      return { status, title: "No sign-in is configured.", note: `${server} is used without one`, server: answer(model), actions };
    case "wrapped":
      return { status, title: "The wrapper's client is used.", detail: WRAPPED, server: answer(model), actions };
    default:
      return { status, title: `Not signed in${place(model)}.`, detail, actions };
  }
}

function overdue(model) {
  const what = model.get("user_code") ? "The code" : "The link";
  return { status: "signed_out", title: `${what} has expired.`, actions: ["sign_in"] };
}

function waiting(model, seconds, opened) {
  const [flow, issuer, url] = [model.get("flow"), model.get("issuer"), address(model.get("start_url"))];
  const view = {
    status: "waiting",
    title: opened ? "Waiting for you to sign in in the other tab." : `Sign in at ${issuer}`,
    note: `for ${model.get("server")} · this notebook continues by itself`,
    // Why in this way, when that is news.
    server: model.get("detail"),
    clock: ` · valid for ${duration(seconds)}`,
    link: url,
    linkText: opened ? "Open it again" : "Sign in",
    actions: model.get("actions"),
  };
  if (flow === "device") {
    view.title = `Go to ${typed(model.get("start_url"))} and type`;
    view.code = model.get("user_code");
    view.detail = "Only type it if you started this.";
    view.qr = model.get("qr_path");
    view.linkText = "Open the page";
  }
  if (flow === "paste") {
    view.title = `Sign in at ${issuer}, then paste the address below`;
    view.detail = "The browser ends at an address that does not load: copy that address.";
    view.note = `for ${model.get("server")}`;
  }
  return view;
}

function signedIn(model, at, isOver) {
  const status = model.get("status");
  const through = model.get("through");
  // What signs in for the person renews when a token is needed, and not before.
  const isRenewing =
    model.get("renews") && !through && (isOver || (at.untilRenewal !== null && at.untilRenewal <= 0));
  const isEnding = !model.get("renews") && at.remaining !== null && at.remaining <= ENDING_SOON;
  const where = [through && `Signed in through ${through}`, model.get("issuer")].filter(Boolean).join(" · ");
  const clock = lifetime(model, at.remaining, { isOver, isRenewing });
  return {
    status: status !== "signed_in" ? status : isRenewing ? "renewing" : isEnding ? "ending" : status,
    lead: model.get("name") ? "Signed in as " : "",
    title: model.get("name") || "Signed in",
    titleHint: model.get("subject") && `subject ${model.get("subject")}`,
    email: model.get("email"),
    detail: model.get("detail"),
    note: where && clock ? `${where} · ` : where,
    clock,
    server: answer(model),
    more: more(model),
    actions: model.get("actions"),
    names: { sign_in: "Sign in again" },
  };
}

// What is folded away: a line that says how much there is, and the facts themselves.
function more(model) {
  const [groups, count] = [model.get("groups"), model.get("group_count")];
  const left = count - groups.length;
  const parts = [model.get("is_admin") && "admin", count > 0 && (count === 1 ? "1 group" : `${count} groups`)];
  const names = (left > 0 ? [...groups, `and ${left} more`] : groups).join(", ");
  const facts = [
    ["Subject", model.get("subject")],
    ["Rights", model.get("is_admin") && `administrator of ${model.get("server")}`],
    [count === 1 ? "Group" : "Groups", count > 0 && names],
  ];
  return { summary: parts.filter(Boolean).join(" · ") || "details", hint: names, facts: facts.filter(([, text]) => text) };
}

function ended(model) {
  return `The sign-in${place(model)} has ended.`;
}

// Where somebody is, or is not, signed in, and for what: the same words as in text.
function place(model) {
  const issuer = model.get("issuer");
  return `${issuer ? ` at ${issuer}` : ""} (for ${model.get("server")})`;
}

function lifetime(model, seconds, { isOver, isRenewing }) {
  if (seconds === null) return "";
  if (isOver) return model.get("through") ? "renews at the next query" : "renewing now";
  if (model.get("status") === "renewal_failed") {
    return `your token works for ${duration(seconds)}${model.get("renews") ? " · trying again" : ""}`;
  }
  if (!model.get("renews")) return `expires in ${duration(seconds)}, does not renew by itself`;
  return `expires in ${duration(seconds)}, ${isRenewing ? "renewing now" : "renews by itself"}`;
}

function answer(model) {
  if (model.get("status") === "offline") return `${model.get("server")}: not connected`;
  const line = model.get("server_line");
  return line ? `${model.get("server")}: ${line}` : "";
}

function duration(seconds) {
  const whole = Math.floor(seconds ?? 0);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= HOUR) return [Math.floor(whole / HOUR), ...parts.map(padded)].join(":");
  return `${parts[0]}:${padded(parts[1])}`;
}

function padded(number) {
  return String(number).padStart(2, "0");
}

function ago(seconds) {
  if (seconds < MINUTE) return "just now";
  const [count, unit] = seconds < HOUR ? [Math.floor(seconds / MINUTE), "minute"] : [Math.floor(seconds / HOUR), "hour"];
  return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
}

// The Jupyter server's own start page: the kernel need not know under which address this page was reached.
const START = /micromegas\/start\/[\w.-]+$/;

// A web address as it is, or the start page of the server that this page came from, below its base URL.
function address(text) {
  if (/^https?:\/\//.test(text)) return text;
  const path = /^\/(?!\/)/.test(text) ? START.exec(text) : null;
  if (path === null) return "";
  const config = document.getElementById("jupyter-config-data");
  const base = config === null ? null : JSON.parse(config.textContent).baseUrl;
  return new URL(base ? base.replace(/\/?$/, "/") + path[0] : text, window.location.href).href;
}

// The address without what a person does not type.
function typed(url) {
  return url.replace(/^https?:\/\//, "").replace(/\/$/, "");
}

// A screen reader says a code letter by letter.
function spell(code) {
  return [...code].join(" ");
}
