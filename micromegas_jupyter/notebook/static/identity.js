// Draws who is signed in, counts down, and sends what a person presses; decides nothing, and calls the kernel for
// nothing else. The kernel's half is login/widget.py. Everything is set as text, never as markup.

const MARKS = { signed_in: "●", renewing: "◐", waiting: "○", signed_out: "○", not_configured: "○", wrapped: "○" };
const TROUBLE_MARK = "▲";
const LABEL = "Micromegas sign-in";
const SVG = "http://www.w3.org/2000/svg";
// How long a kernel may be silent after a click before that is said, and how long good news stays.
const PATIENCE_MILLISECONDS = 1500;
const NEWS_MILLISECONDS = 8000;
const BUSY = "The kernel is busy. What you pressed is kept and done as soon as it is free.";
const GONE_STATUSES = ["restarting", "autorestarting", "terminating", "dead"];

export default () => {
  // What all views of this widget share: when the times were learned on this browser's clock, whether the link was
  // followed, what was pressed and not taken up yet, what is worth a moment, and whether the kernel is gone.
  let learned;
  let opened = false;
  let pressed = null;
  let news = null;
  let isLost = false;
  const draws = new Set();
  const drawAll = () => draws.forEach((draw) => draw());

  return {
    initialize({ model }) {
      const learn = () => {
        learned = Date.now();
      };
      const forget = () => {
        opened = false;
      };
      const taken = () => {
        pressed = null;
        if (model.get("working")) news = null;
      };
      const hear = (message) => {
        pressed = null;
        if (typeof message?.news === "string") news = { text: message.news, at: Date.now() };
        drawAll();
      };
      const lose = () => {
        isLost = true;
        pressed = null;
        drawAll();
      };
      const watch = (_, status) => GONE_STATUSES.includes(status) && lose();
      learn();
      model.on("change:as_of", learn);
      model.on("change:start_url", forget);
      model.on("change:working", taken);
      model.on("msg:custom", hear);
      // JupyterLab and Notebook tell what became of the kernel; a crash tells nobody else.
      const signal = model.widget_manager?.kernel?.statusChanged;
      signal?.connect?.(watch);
      return () => {
        model.off("change:as_of", learn);
        model.off("change:start_url", forget);
        model.off("change:working", taken);
        model.off("msg:custom", hear);
        signal?.disconnect?.(watch);
      };
    },

    render({ model, el }) {
      const parts = build(el);
      const press = (action) => {
        if (pressed || model.get("working")) return;
        pressed = { action, at: Date.now() };
        try {
          model.send({ action });
        } catch {
          isLost = true; // its end of the line is gone
          pressed = null;
        }
        drawAll();
      };
      const controls = buttons(parts, press);
      let isOpen = false;
      const fold = () => {
        isOpen = !isOpen;
        draw();
      };
      const draw = () => {
        const hadFocus = parts.root.contains(parts.root.getRootNode().activeElement);
        isLost ||= parts.root.closest(".jupyter-widgets-disconnected") !== null;
        const view = describe(model, times(model), { opened, isLost });
        show(parts, view, model);
        unfold(parts, view.more, isOpen);
        controls(view, isLost ? "" : model.get("working") || pressed?.action);
        set(parts.error, isLost ? "" : model.get("error"));
        set(parts.news, isLost ? "" : happening(model));
        if (hadFocus) keepFocus(parts);
      };
      const follow = () => {
        opened = true;
        drawAll();
      };

      const release = keepKeys(parts.root);
      parts.link.addEventListener("click", follow);
      parts.more.addEventListener("click", fold);
      model.on("change", draw);
      model.on("comm_live_update", draw);
      draws.add(draw);
      const timer = setInterval(draw, 1000);
      draw();
      return () => {
        clearInterval(timer);
        release();
        draws.delete(draw);
        model.off("change", draw);
        model.off("comm_live_update", draw);
        parts.link.removeEventListener("click", follow);
        parts.more.removeEventListener("click", fold);
      };
    },
  };

  function times(model) {
    const passed = (Date.now() - learned) / 1000;
    const left = (name) => (model.get(name) === null ? null : Math.max(model.get(name) - passed, 0));
    const since = model.get("since_seconds");
    return {
      remaining: left("remaining_seconds"),
      untilRenewal: left("renews_in_seconds"),
      since: since === null ? null : since + passed,
    };
  }

  function happening(model) {
    const working = model.get("working");
    if (working) return BUTTONS[working]?.working ?? "";
    if (pressed) return Date.now() - pressed.at < PATIENCE_MILLISECONDS ? BUTTONS[pressed.action].working : BUSY;
    return news && Date.now() - news.at < NEWS_MILLISECONDS ? news.text : "";
  }
};

function build(el) {
  const label = freeLabel();
  const root = add(el, "section", "micromegas-identity");
  root.setAttribute("aria-label", label);
  const mark = add(root, "span", "micromegas-mark");
  mark.setAttribute("aria-hidden", "true");
  const body = add(root, "div", "micromegas-body");
  const text = add(body, "div", "micromegas-text");
  const head = add(text, "div", "micromegas-head");
  // Announced when it changes; the clock below is not, it would speak every second.
  const sentence = add(head, "div", "micromegas-sentence");
  sentence.setAttribute("role", "status");
  const lead = add(sentence, "span", "micromegas-hidden");
  const title = add(sentence, "strong");
  const code = add(sentence, "code", "micromegas-code");
  code.setAttribute("aria-hidden", "true");
  const spelled = add(sentence, "span", "micromegas-hidden");
  const email = add(sentence, "span");
  const detail = add(sentence, "div", "micromegas-detail");
  const first = add(head, "div", "micromegas-first");
  const link = add(first, "a", "micromegas-button micromegas-primary");
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  const more = add(head, "button", "micromegas-more");
  more.type = "button";
  const facts = add(text, "dl", "micromegas-facts");
  facts.id = `micromegas-facts-${label.slice(LABEL.length).trim() || 1}`;
  const foot = add(text, "div", "micromegas-foot");
  const lines = add(foot, "div", "micromegas-lines");
  const times = add(lines, "div");
  const note = add(times, "span");
  const clock = add(times, "span", "micromegas-clock");
  clock.setAttribute("role", "timer");
  clock.setAttribute("aria-live", "off");
  const server = add(lines, "div");
  const actions = add(foot, "div", "micromegas-actions");
  const error = add(text, "div", "micromegas-error");
  error.setAttribute("aria-live", "polite");
  const news = add(text, "div", "micromegas-news");
  news.setAttribute("aria-live", "polite");
  const qr = drawing(add(body, "div", "micromegas-qr"));
  return {
    root, mark, lead, title, code, spelled, email, detail, first, link, more, facts, note, clock, server,
    actions, error: add(error, "span"), news: add(news, "span"), qr,
  }; // prettier-ignore
}

// Several cells and notebooks may show the widget in one page: a list of landmarks tells them apart.
function freeLabel() {
  const used = new Set([...document.querySelectorAll(".micromegas-identity")].map((each) => each.ariaLabel));
  let [label, number] = [LABEL, 1];
  while (used.has(label)) label = `${LABEL} ${++number}`;
  return label;
}

function show(parts, view, model) {
  parts.root.dataset.status = view.status;
  parts.mark.textContent = MARKS[view.status] ?? TROUBLE_MARK;
  set(parts.lead, view.lead ?? "");
  set(parts.title, view.title);
  hint(parts.title, view.titleHint ?? "");
  set(parts.code, view.code ?? "");
  set(parts.spelled, spell(view.code ?? ""));
  set(parts.email, view.email ?? "");
  set(parts.detail, view.detail ?? "");
  set(parts.note, view.note ?? "");
  set(parts.clock, view.clock ?? "");
  set(parts.server, view.server ?? "");
  parts.qr(view.qr ?? "", model.get("qr_side"), model.get("qr_label"));
  const url = view.link ?? "";
  set(parts.link, url && `${view.linkText} ↗`);
  if (url === "") parts.link.removeAttribute("href");
  else if (parts.link.getAttribute("href") !== url) parts.link.href = url;
}

// What is folded away has a button that says how much there is.
function unfold({ more, facts }, shown, isOpen) {
  const has = Boolean(shown && shown.facts.length > 0);
  set(more, has ? shown.summary : "");
  facts.hidden = !has || !isOpen;
  more.setAttribute("aria-expanded", String(!facts.hidden));
  if (!has) return;
  hint(more, shown.hint);
  more.setAttribute("aria-controls", facts.id);
  const text = JSON.stringify(shown.facts);
  if (facts.dataset.shown === text) return;
  facts.dataset.shown = text;
  facts.replaceChildren();
  for (const [name, value] of shown.facts) {
    set(add(facts, "dt"), name);
    set(add(facts, "dd"), value);
  }
}

// Makes the buttons once; returns what shows those of a view, and that one of them is at work.
function buttons(parts, press) {
  const made = Object.entries(BUTTONS).map(([action, { hint: words }]) => {
    const isFirst = action === "sign_in";
    const button = add(isFirst ? parts.first : parts.actions, "button", "micromegas-button");
    button.classList.toggle("micromegas-primary", isFirst);
    button.type = "button";
    hint(button, words);
    button.addEventListener("click", () => press(action));
    return [action, button];
  });
  return (view, atWork) => {
    for (const [action, button] of made) {
      set(button, view.names?.[action] ?? BUTTONS[action].text);
      button.hidden = !view.actions.includes(action);
      // Not `disabled`, which would take the keyboard's focus away.
      button.setAttribute("aria-disabled", String(Boolean(atWork)));
      button.classList.toggle("micromegas-working", atWork === action);
    }
    parts.first.hidden = [...parts.first.children].every((child) => child.hidden);
    parts.actions.hidden = [...parts.actions.children].every((child) => child.hidden);
  };
}

// Whoever works with the keyboard goes on at what has taken the place of what they pressed.
function keepFocus({ root }) {
  const active = root.getRootNode().activeElement;
  if (root.contains(active) && !active.closest("[hidden]")) return;
  root.querySelector(":is(a[href], button):not([hidden], [hidden] *)")?.focus();
}

// JupyterLab would take Enter and the space bar for the notebook's; all its other shortcuts, such as the one for
// saving, stay. The listener is asked before JupyterLab's, which is the document's.
function keepKeys(root) {
  const keep = (event) => {
    if (!root.contains(event.target)) return;
    const isOwn = ["Enter", " "].includes(event.key) && !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
    if (isOwn) root.setAttribute("data-lm-suppress-shortcuts", "true");
    else root.removeAttribute("data-lm-suppress-shortcuts");
  };
  window.addEventListener("keydown", keep, true);
  return () => window.removeEventListener("keydown", keep, true);
}

// A QR code of the path that the kernel sent: an element per attribute, so nothing is ever read as markup.
function drawing(frame) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("role", "img");
  svg.setAttribute("shape-rendering", "crispEdges");
  svg.append(path);
  frame.append(svg);
  return (data, side, label) => {
    frame.hidden = data === "";
    if (path.getAttribute("d") === data) return;
    svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
    svg.setAttribute("aria-label", label);
    path.setAttribute("d", data);
  };
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

function hint(element, words) {
  if (element.title !== words) element.title = words;
}
