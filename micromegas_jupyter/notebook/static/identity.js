// Draws who is signed in and counts down; decides nothing and never calls the kernel.
// The kernel's half is identity_widget.py. Everything is set as text, never as markup.

const MARKS = { signed_in: "●", waiting: "○", signed_out: "○", not_configured: "○" };
const TROUBLE_MARK = "▲";

export default () => {
  // The remaining time and the moment, on this browser's clock, when it was learned.
  let measured;
  let opened = false;

  return {
    initialize({ model }) {
      const measure = () => {
        measured = { remaining: model.get("remaining_seconds"), at: Date.now() };
      };
      const forget = () => {
        opened = false;
      };
      measure();
      model.on("change:as_of change:remaining_seconds", measure);
      model.on("change:start_url", forget);
      return () => {
        model.off("change:as_of change:remaining_seconds", measure);
        model.off("change:start_url", forget);
      };
    },

    render({ model, el }) {
      const root = add(el, "section", "micromegas-identity");
      root.setAttribute("aria-label", "Micromegas sign-in");
      const mark = add(root, "span", "micromegas-mark");
      mark.setAttribute("aria-hidden", "true");
      const text = add(root, "div", "micromegas-text");
      // Announced when it changes; the clock beside it is not, it would speak every second.
      const sentence = add(text, "div", "micromegas-sentence");
      sentence.setAttribute("role", "status");
      sentence.setAttribute("aria-live", "polite");
      const lead = add(sentence, "span", "micromegas-hidden");
      const title = add(sentence, "strong");
      const email = add(sentence, "span", "micromegas-quiet");
      const detail = add(sentence, "div", "micromegas-detail");
      const facts = add(text, "div", "micromegas-quiet");
      const note = add(facts, "span");
      const clock = add(facts, "span", "micromegas-clock");
      clock.setAttribute("role", "timer");
      clock.setAttribute("aria-live", "off");
      const server = add(text, "div", "micromegas-quiet");
      const badge = add(root, "span", "micromegas-badge");
      const link = add(root, "a", "micromegas-link");
      link.target = "_blank";
      link.rel = "noopener noreferrer";
      link.textContent = "Sign in ↗";

      const draw = () => {
        const seconds = remaining();
        const view = describe(model, seconds, opened);
        root.dataset.status = view.status;
        mark.textContent = MARKS[view.status] ?? TROUBLE_MARK;
        set(lead, view.lead ?? "");
        set(title, view.title);
        set(email, view.email ?? "");
        set(detail, view.detail ?? "");
        set(note, view.note ?? "");
        set(clock, view.clock ?? "");
        set(server, view.server ?? "");
        set(badge, view.badge ?? "");
        const url = view.link ?? "";
        link.hidden = url === "";
        if (url === "") link.removeAttribute("href");
        else if (link.getAttribute("href") !== url) link.href = url;
      };
      const follow = () => {
        opened = true;
        draw();
      };

      link.addEventListener("click", follow);
      model.on("change", draw);
      const timer = setInterval(draw, 1000);
      draw();
      return () => {
        clearInterval(timer);
        model.off("change", draw);
        link.removeEventListener("click", follow);
      };
    },
  };

  function remaining() {
    if (measured.remaining === null) return null;
    return Math.max(measured.remaining - (Date.now() - measured.at) / 1000, 0);
  }
};

function describe(model, seconds, opened) {
  const [issuer, server, detail] = ["issuer", "server", "detail"].map((name) => model.get(name));
  const status = model.get("status");
  const isOver = seconds !== null && seconds <= 0;
  switch (status) {
    case "waiting": {
      if (isOver) {
        return { status: "signed_out", title: "The link has expired.", detail: "Run %micromegas_login again." };
      }
      const title = opened ? "Waiting for you to sign in in the other tab." : `Sign in to ${issuer}`;
      const note = `for ${server} · this notebook continues by itself`;
      return { status, title, note, clock: ` · valid for ${duration(seconds)}`, link: safeLink(model.get("start_url")) };
    }
    case "signed_in":
    case "renewal_failed":
    case "offline":
      if (isOver && !model.get("renews")) {
        return { status: "expired", title: `Signed out of ${issuer}.`, detail: "The sign-in has ended. Run %micromegas_login." };
      }
      return { ...signedIn(model, seconds, isOver), status };
    case "expired":
      return { status, title: `Signed out of ${issuer}.`, detail: `${detail} Run %micromegas_login.`.trim() };
    case "not_configured":
      return { status, title: "No sign-in is configured", note: `${server} is used without one`, server: answer(model) };
    default:
      return { status, title: `Not signed in to ${issuer}`, detail: detail || "Run %micromegas_login." };
  }
}

function signedIn(model, seconds, isOver) {
  const issuer = model.get("issuer");
  const clock = lifetime(model, seconds, isOver);
  return {
    lead: "Signed in as ",
    title: model.get("name"),
    email: model.get("email"),
    detail: model.get("detail"),
    note: issuer && clock ? `${issuer} · ` : issuer,
    clock,
    server: answer(model),
    badge: model.get("is_admin") ? "admin" : "",
  };
}

function lifetime(model, seconds, isOver) {
  if (seconds === null) return "";
  if (isOver) return "renews with the next query";
  if (model.get("status") === "renewal_failed") {
    return `your token works for ${duration(seconds)} · the next query tries again`;
  }
  return `expires in ${duration(seconds)}${model.get("renews") ? ", renews by itself" : ""}`;
}

function answer(model) {
  const line = model.get("server_line");
  return line ? `${model.get("server")}: ${line}` : "";
}

function duration(seconds) {
  const whole = Math.floor(seconds ?? 0);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  if (whole >= 3600) return [Math.floor(whole / 3600), ...parts.map(padded)].join(":");
  return `${parts[0]}:${padded(parts[1])}`;
}

function padded(number) {
  return String(number).padStart(2, "0");
}

function safeLink(url) {
  return /^https?:\/\//.test(url) ? url : "";
}

function add(parent, tag, name) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  parent.append(element);
  return element;
}

// Writing the same text again would make a screen reader say it again.
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}
