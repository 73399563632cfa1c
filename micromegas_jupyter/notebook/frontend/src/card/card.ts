// The sign-in card: draws the view that the kernel sends, counts down, and reports button presses. The states of a
// sign-in and their texts are in login/display.py.
import { insertCell } from "../base/cells";
import { make, makeButton } from "../dom";
import type { Model, RenderContext } from "../widget";

interface Button extends Record<"action" | "text" | "working", string> {
  opens: boolean;
  confirm?: { text: string; line: string };
}

interface View extends Record<"status" | "mark" | "title", string> {
  lines: string[];
  buttons: Button[];
  ended?: string;
  opened?: string;
  help?: string;
  code?: string;
  qr?: { label: string; side: number; path: string } | null;
  summary?: string;
  facts?: [string, string][];
}

interface KernelView extends View, Record<"label" | "note" | "working", string> {
  seconds: number | null;
  awaited: boolean;
}

type Slot = (sender: unknown, status: string) => void;
type Signal = Record<"connect" | "disconnect", (slot: Slot) => void>;

// How long a kernel may be silent after a click before the card reports it, and how long good news is shown.
const PATIENCE_MILLISECONDS = 1500;
const NEWS_MILLISECONDS = 8000;
const BUSY = "The kernel is busy. What you pressed is done as soon as it is free.";
const LOST: View = {
  status: "failed",
  mark: "▲",
  title: "No longer connected to the kernel.",
  lines: ["The kernel restarted or stopped. To continue, run a cell that loads the extension and connects again."],
  buttons: [{ action: "reconnect", text: "Insert the cell", working: "", opens: false }],
};
const RECONNECT = "%load_ext micromegas_jupyter\n%micromegas_login";
const GONE = ["restarting", "autorestarting", "terminating", "dead"];
// The Jupyter server's own start page: the kernel need not know this page's public address.
const START = /micromegas\/start\/[\w.-]+$/;

// All cards of a notebook show one model, and share this state.
export default () => {
  let model: Model & {
    set(trait: string, value: unknown): void;
    save_changes(): void;
    widget_manager?: { kernel?: { statusChanged?: Signal } };
  };
  let [learnedAt, address] = [Date.now(), ""];
  let [opened, cameBack, isLost] = [false, false, false];
  let tab: Window | null = null; // opened by a click, and waits for its URL
  let confirming = ""; // the action whose button has been pressed once
  let pressed: { working: string; at: number } | undefined;
  let news = { text: "", at: 0 };
  let [home, pinned]: [Element | null, Card | undefined] = [null, undefined];
  const cards = new Map<Element, { card: Card; isVisible: boolean }>();
  const shownView = () => model.get("view") as KernelView;

  const send = (action: string) => {
    try {
      model.send({ action });
    } catch {
      isLost = true; // the kernel is gone
    }
  };

  const reconnect = (root: Element) => {
    const say = (text: string) => {
      news = { text, at: Date.now() };
      draw();
    };
    insertCell(root, RECONNECT).then(
      (isInserted) => say(isInserted ? "Inserted below. Run it." : "Copied. Paste it into a cell and run it."),
      (error: unknown) => say((error as Error).message),
    );
  };

  const press = (button: Button, root: Element) => {
    if (isLost) {
      reconnect(root);
      return;
    }
    if (pressed ?? shownView().working) return;
    const isUnconfirmed = Boolean(button.confirm) && confirming !== button.action;
    confirming = isUnconfirmed ? button.action : "";
    if (!isUnconfirmed) {
      pressed = { working: button.working, at: Date.now() };
      // Only the click itself may open a tab, which stays empty until the kernel has its URL.
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
    setTimeout(draw); // later, because the link is being followed and will be replaced
  };

  // If a cell waits and its card is out of sight, the card is also shown at the top of the notebook.
  const draw = () => {
    const isHidden = [...cards.values()].every(({ isVisible }) => !isVisible);
    if (home && isHidden && shownView().awaited && !isLost) pinned ??= mount(home, "micromegas-pinned");
    else {
      pinned?.root.remove();
      pinned = undefined;
    }
    for (const { card } of cards.values()) card.draw();
    pinned?.draw();
  };

  const happening = ({ working, note, buttons }: KernelView): string => {
    const recent = Date.now() - news.at < NEWS_MILLISECONDS ? news.text : "";
    if (isLost) return recent;
    if (pressed) return Date.now() - pressed.at < PATIENCE_MILLISECONDS ? pressed.working : BUSY;
    const confirmed = buttons.find(({ action }) => action === confirming)?.confirm;
    return confirmed?.line ?? (working || note || recent);
  };

  const mount = (parent: Element, name = ""): Card => {
    const [mark, code] = [make("span", { class: "mark", "aria-hidden": true }), make("code", { "aria-hidden": true })];
    const [title, spelled, main, more] = [make("strong"), make("span", { class: "hidden" }), make("div"), make("div")];
    const [lines, facts, note, qr] = [make("div"), make("div"), make("div", { "aria-live": "polite" }), make("div")];
    // Screen readers announce the status when it changes, but not the lines, which change every second.
    const status = make("div", { role: "status" }, title, code, spelled);
    const [head, foot] = [make("div", { class: "row" }, status, main), make("div", { class: "row" }, lines, more)];
    const text = make("div", { class: "text" }, head, foot, facts, note);
    const attributes = { class: `micromegas-card ${name}`, role: "group", "aria-label": shownView().label };
    const root = make("div", attributes, mark, text, qr);
    const drawn = new Map<Element, string>();
    parent.append(root);

    // Unchanged parts are kept; otherwise a screen reader would repeat them, and the keyboard focus would be lost.
    const fill = (element: HTMLElement, build: () => (Node | string)[], ...shown: unknown[]) => {
      const key = JSON.stringify(shown);
      if (drawn.get(element) === key) return;
      drawn.set(element, key);
      element.replaceChildren(...build());
      element.hidden = element.childNodes.length === 0;
    };
    const write = (element: HTMLElement, words = "") => fill(element, () => (words ? [words] : []), words);
    const makeAction = (button: Button) => {
      if (!button.opens || !address) {
        const text = confirming === button.action ? button.confirm?.text : undefined;
        return makeButton(text ?? button.text, () => press(button, root), { "data-action": button.action });
      }
      const link = make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, `${button.text} ↗`);
      link.addEventListener("click", follow);
      return link;
    };
    const drawCard = () => {
      const shown = shownView();
      const hadFocus = root.contains(document.activeElement);
      const left = (shown.seconds ?? Infinity) - (Date.now() - learnedAt) / 1000;
      isLost ||= root.closest(".jupyter-widgets-disconnected") !== null;
      const view: View = isLost ? LOST : shown;
      const texts = view.lines.map((line) => (left <= 0 && line.includes("{left}") ? (view.ended ?? "") : line));
      if (cameBack && view.help) texts.push(view.help);
      root.dataset.status = view.status;
      write(mark, view.mark);
      write(title, opened && view.opened ? view.opened : view.title);
      write(code, view.code);
      write(spelled, Array.from(view.code ?? "").join(" ")); // a screen reader spells it letter by letter
      fill(lines, () => texts.map(() => make("div")), texts.length);
      texts.forEach((words, at) => write(lines.children[at] as HTMLElement, words.replace("{left}", duration(left))));
      const [opening, others] = [true, false].map((opens) => view.buttons.filter((each) => each.opens === opens));
      fill(main, () => (opening ?? []).map(makeAction), opening, address);
      fill(more, () => (others ?? []).map(makeAction), others, confirming);
      fill(facts, () => makeFacts(view), view.facts, view.summary);
      fill(qr, () => makeQr(view), view.qr);
      write(note, happening(shown));
      note.className = shown.note && "error";
      // Not `disabled`, which would remove the keyboard focus.
      const isBusy = String(Boolean(pressed ?? shown.working));
      root.querySelectorAll("button").forEach((each) => each.setAttribute("aria-disabled", isBusy));
      // With the keyboard, the focus moves to the element that replaced the pressed button.
      const next = root.querySelector<HTMLElement>(`[data-action="${confirming}"]`) ?? root.querySelector("a, button");
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
    initialize(context: { model: typeof model }) {
      model = context.model;
      const signal = model.widget_manager?.kernel?.statusChanged;
      // marimo reruns cells when a page changes a trait, but not when the kernel does.
      const echo = () => {
        if (signal) return;
        model.set("status", shownView().status);
        model.save_changes();
      };
      const learn = () => {
        learnedAt = Date.now();
        [pressed, confirming] = [undefined, ""];
        echo();
        draw();
      };
      const hear = (message: { address?: string; news?: string }) => {
        const found = resolve(message.address ?? "");
        if (found !== address) opened = cameBack = false;
        opened ||= tab !== null && found !== "";
        if (found) tab?.location.replace(found);
        else tab?.close();
        [address, tab, pressed] = [found, null, undefined];
        if (message.news) news = { text: message.news, at: Date.now() };
        draw();
      };
      const watch: Slot = (_, kernelStatus) => {
        isLost ||= GONE.includes(kernelStatus);
        draw();
      };
      const comeBack = () => {
        cameBack = opened;
        draw();
      };
      const timer = setInterval(draw, 1000);
      echo();
      model.on("change:view", learn);
      model.on("msg:custom", hear);
      signal?.connect(watch);
      window.addEventListener("focus", comeBack);
      window.addEventListener("keydown", keepKey, true);
      send(""); // a newly loaded page has no URL yet
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
    render({ el }: RenderContext) {
      const card = mount(el);
      cards.set(card.root, { card, isVisible: true });
      observer.observe(card.root);
      return () => {
        observer.unobserve(card.root);
        cards.delete(card.root);
      };
    },
  };
};

interface Card {
  root: HTMLElement;
  draw: () => void;
}

function makeFacts({ facts, summary }: View): HTMLElement[] {
  if (!facts?.length) return [];
  const parts = facts.flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, fact)]);
  return [make("details", {}, make("summary", {}, summary ?? ""), make("dl", {}, ...parts))];
}

// A QR code from the path that the kernel sent; only attributes are set, so nothing is parsed as markup.
function makeQr({ qr }: View): Element[] {
  if (!qr) return [];
  const makeSvg = (tag: string, attributes: Record<string, string>) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const svg = makeSvg("svg", { role: "img", "aria-label": qr.label, viewBox: `0 0 ${qr.side} ${qr.side}` });
  svg.append(makeSvg("path", { d: qr.path, "shape-rendering": "crispEdges" }));
  return [svg];
}

function duration(seconds: number): string {
  const whole = Math.floor(Math.abs(seconds));
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  return whole < 3600 ? `${Number(minutes)}:${rest}` : `${Math.floor(whole / 3600)}:${minutes}:${rest}`;
}

// An unchanged web address, or the start page of the server that served this page, below its base URL.
function resolve(text: string): string {
  if (/^https?:\/\//.test(text)) return text;
  const path = /^\/(?!\/)/.test(text) ? START.exec(text) : null;
  if (path === null) return "";
  const config = document.getElementById("jupyter-config-data")?.textContent;
  const base = config ? (JSON.parse(config) as { baseUrl?: string }).baseUrl : "";
  return new URL(base ? base.replace(/\/?$/, "/") + path[0] : text, window.location.href).href;
}

// Keeps Enter and the space bar from JupyterLab; all its other shortcuts, such as the one for saving, still work.
// Runs before JupyterLab's listener, which is on the document.
function keepKey(event: KeyboardEvent): void {
  const card = event.target instanceof Element ? event.target.closest(".micromegas-card") : null;
  const isPlain = !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
  card?.toggleAttribute("data-lm-suppress-shortcuts", isPlain && ["Enter", " "].includes(event.key));
}
