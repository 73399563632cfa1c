// src/dom.ts
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}
function makeButton(text, onClick, attributes = {}) {
  const button = make("button", { type: "button", ...attributes }, text);
  button.addEventListener("click", onClick);
  return button;
}
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copySelected(text))
      throw new Error("The browser does not let this page copy. Open it over https, or download a file.");
  }
}
function copySelected(text) {
  const focused = document.activeElement;
  const field = make("textarea", { readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  field.style.cssText = "position: fixed; top: 0; left: 0; opacity: 0";
  for (const event of ["keydown", "copy", "focusin"]) field.addEventListener(event, (each) => each.stopPropagation());
  document.body.append(field);
  try {
    field.select();
    return document.execCommand("copy");
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}

// src/base/cells.ts
async function insertCell(element, source) {
  const options = { bubbles: true, cancelable: true, composed: true, detail: { source } };
  if (!element.dispatchEvent(new CustomEvent("micromegas:new-cell", options))) return true;
  await copyText(source);
  return false;
}

// src/card/card.ts
var PATIENCE_MILLISECONDS = 1500;
var NEWS_MILLISECONDS = 8e3;
var BUSY = "The kernel is busy. What you pressed is done as soon as it is free.";
var LOST = {
  status: "failed",
  mark: "▲",
  title: "No longer connected to the kernel.",
  lines: ["The kernel restarted or stopped. To continue, run a cell that loads the extension and connects again."],
  buttons: [{ action: "reconnect", text: "Insert the cell", working: "", opens: false }]
};
var RECONNECT = "%load_ext micromegas_jupyter\n%micromegas_login";
var GONE = ["restarting", "autorestarting", "terminating", "dead"];
var START = /micromegas\/start\/[\w.-]+$/;
var card_default = () => {
  let model;
  let [learnedAt, address] = [Date.now(), ""];
  let [opened, cameBack, isLost] = [false, false, false];
  let tab = null;
  let confirming = "";
  let pressed;
  let news = { text: "", at: 0 };
  let [home, pinned] = [null, void 0];
  const cards = /* @__PURE__ */ new Map();
  const shownView = () => model.get("view");
  const send = (action) => {
    try {
      model.send({ action });
    } catch {
      isLost = true;
    }
  };
  const reconnect = (root) => {
    const say = (text) => {
      news = { text, at: Date.now() };
      draw();
    };
    insertCell(root, RECONNECT).then(
      (isInserted) => say(isInserted ? "Inserted below. Run it." : "Copied. Paste it into a cell and run it."),
      (error) => say(error.message)
    );
  };
  const press = (button, root) => {
    if (isLost) {
      reconnect(root);
      return;
    }
    if (pressed ?? shownView().working) return;
    const isUnconfirmed = Boolean(button.confirm) && confirming !== button.action;
    confirming = isUnconfirmed ? button.action : "";
    if (!isUnconfirmed) {
      pressed = { working: button.working, at: Date.now() };
      tab = button.opens ? window.open("about:blank") : null;
      if (tab) {
        tab.opener = null;
        tab.document.body.textContent = button.working;
      }
      send(button.action);
    }
    draw();
  };
  const follow = () => {
    opened = true;
    setTimeout(draw);
  };
  const draw = () => {
    const isHidden = [...cards.values()].every(({ isVisible }) => !isVisible);
    if (home && isHidden && shownView().awaited && !isLost) pinned ??= mount(home, "micromegas-pinned");
    else {
      pinned?.root.remove();
      pinned = void 0;
    }
    for (const { card } of cards.values()) card.draw();
    pinned?.draw();
  };
  const happening = ({ working, note, buttons }) => {
    const recent = Date.now() - news.at < NEWS_MILLISECONDS ? news.text : "";
    if (isLost) return recent;
    if (pressed) return Date.now() - pressed.at < PATIENCE_MILLISECONDS ? pressed.working : BUSY;
    const confirmed = buttons.find(({ action }) => action === confirming)?.confirm;
    return confirmed?.line ?? (working || note || recent);
  };
  const mount = (parent, name = "") => {
    const [mark, code] = [make("span", { class: "mark", "aria-hidden": true }), make("code", { "aria-hidden": true })];
    const [title, spelled, main, more] = [make("strong"), make("span", { class: "hidden" }), make("div"), make("div")];
    const [lines, facts, note, qr] = [make("div"), make("div"), make("div", { "aria-live": "polite" }), make("div")];
    const status = make("div", { role: "status" }, title, code, spelled);
    const [head, foot] = [make("div", { class: "row" }, status, main), make("div", { class: "row" }, lines, more)];
    const text = make("div", { class: "text" }, head, foot, facts, note);
    const attributes = { class: `micromegas-card ${name}`, role: "group", "aria-label": shownView().label };
    const root = make("div", attributes, mark, text, qr);
    const drawn = /* @__PURE__ */ new Map();
    parent.append(root);
    const fill = (element, build, ...shown) => {
      const key = JSON.stringify(shown);
      if (drawn.get(element) === key) return;
      drawn.set(element, key);
      element.replaceChildren(...build());
      element.hidden = element.childNodes.length === 0;
    };
    const write = (element, words = "") => fill(element, () => words ? [words] : [], words);
    const makeAction = (button) => {
      if (!button.opens || !address) {
        const text2 = confirming === button.action ? button.confirm?.text : void 0;
        return makeButton(text2 ?? button.text, () => press(button, root), { "data-action": button.action });
      }
      const link = make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, `${button.text} ↗`);
      link.addEventListener("click", follow);
      return link;
    };
    const drawCard = () => {
      const shown = shownView();
      const hadFocus = root.contains(document.activeElement);
      const left = (shown.seconds ?? Infinity) - (Date.now() - learnedAt) / 1e3;
      isLost ||= root.closest(".jupyter-widgets-disconnected") !== null;
      const view = isLost ? LOST : shown;
      const texts = view.lines.map((line) => left <= 0 && line.includes("{left}") ? view.ended ?? "" : line);
      if (cameBack && view.help) texts.push(view.help);
      root.dataset.status = view.status;
      write(mark, view.mark);
      write(title, opened && view.opened ? view.opened : view.title);
      write(code, view.code);
      write(spelled, Array.from(view.code ?? "").join(" "));
      fill(lines, () => texts.map(() => make("div")), texts.length);
      texts.forEach((words, at) => write(lines.children[at], words.replace("{left}", duration(left))));
      const [opening, others] = [true, false].map((opens) => view.buttons.filter((each) => each.opens === opens));
      fill(main, () => (opening ?? []).map(makeAction), opening, address);
      fill(more, () => (others ?? []).map(makeAction), others, confirming);
      fill(facts, () => makeFacts(view), view.facts, view.summary);
      fill(qr, () => makeQr(view), view.qr);
      write(note, happening(shown));
      note.className = shown.note && "error";
      const isBusy = String(Boolean(pressed ?? shown.working));
      root.querySelectorAll("button").forEach((each) => each.setAttribute("aria-disabled", isBusy));
      const next = root.querySelector(`[data-action="${confirming}"]`) ?? root.querySelector("a, button");
      if (hadFocus && !root.contains(document.activeElement)) next?.focus();
    };
    drawCard();
    return { root, draw: drawCard };
  };
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      home = target.closest(".jp-NotebookPanel-notebook") ?? home;
      const known = cards.get(target);
      if (known) known.isVisible = isIntersecting;
    }
    draw();
  });
  return {
    initialize(context) {
      model = context.model;
      const signal = model.widget_manager?.kernel?.statusChanged;
      const echo = () => {
        if (signal) return;
        model.set("status", shownView().status);
        model.save_changes();
      };
      const learn = () => {
        learnedAt = Date.now();
        [pressed, confirming] = [void 0, ""];
        echo();
        draw();
      };
      const hear = (message) => {
        const found = resolve(message.address ?? "");
        if (found !== address) opened = cameBack = false;
        opened ||= tab !== null && found !== "";
        if (found) tab?.location.replace(found);
        else tab?.close();
        [address, tab, pressed] = [found, null, void 0];
        if (message.news) news = { text: message.news, at: Date.now() };
        draw();
      };
      const watch = (_, kernelStatus) => {
        isLost ||= GONE.includes(kernelStatus);
        draw();
      };
      const comeBack = () => {
        cameBack = opened;
        draw();
      };
      const timer = setInterval(draw, 1e3);
      echo();
      model.on("change:view", learn);
      model.on("msg:custom", hear);
      signal?.connect(watch);
      window.addEventListener("focus", comeBack);
      window.addEventListener("keydown", keepKey, true);
      send("");
      return () => {
        clearInterval(timer);
        observer.disconnect();
        pinned?.root.remove();
        model.off("change:view", learn);
        model.off("msg:custom", hear);
        signal?.disconnect(watch);
        window.removeEventListener("focus", comeBack);
        window.removeEventListener("keydown", keepKey, true);
      };
    },
    render({ el }) {
      const card = mount(el);
      cards.set(card.root, { card, isVisible: true });
      observer.observe(card.root);
      return () => {
        observer.unobserve(card.root);
        cards.delete(card.root);
      };
    }
  };
};
function makeFacts({ facts, summary }) {
  if (!facts?.length) return [];
  const parts = facts.flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, fact)]);
  return [make("details", {}, make("summary", {}, summary ?? ""), make("dl", {}, ...parts))];
}
function makeQr({ qr }) {
  if (!qr) return [];
  const makeSvg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const svg = makeSvg("svg", { role: "img", "aria-label": qr.label, viewBox: `0 0 ${qr.side} ${qr.side}` });
  svg.append(makeSvg("path", { d: qr.path, "shape-rendering": "crispEdges" }));
  return [svg];
}
function duration(seconds) {
  const whole = Math.floor(Math.abs(seconds));
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  return whole < 3600 ? `${Number(minutes)}:${rest}` : `${Math.floor(whole / 3600)}:${minutes}:${rest}`;
}
function resolve(text) {
  if (/^https?:\/\//.test(text)) return text;
  const path = /^\/(?!\/)/.test(text) ? START.exec(text) : null;
  if (path === null) return "";
  const config = document.getElementById("jupyter-config-data")?.textContent;
  const base = config ? JSON.parse(config).baseUrl : "";
  return new URL(base ? base.replace(/\/?$/, "/") + path[0] : text, window.location.href).href;
}
function keepKey(event) {
  const card = event.target instanceof Element ? event.target.closest(".micromegas-card") : null;
  const isPlain = !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
  card?.toggleAttribute("data-lm-suppress-shortcuts", isPlain && ["Enter", " "].includes(event.key));
}
export {
  card_default as default
};
