import { afterEach, beforeEach, expect, test, vi } from "vitest";
import card from "./card";

type Listener = (message?: unknown) => void;

const ADDRESS = "http://127.0.0.1:9/start";
const SIGN_IN = { action: "sign_in", text: "Sign in", working: "Starting…", opens: true };
const CONFIRM = { text: "Sign out everywhere", line: "Other notebooks, too." };
const SIGN_OUT = { action: "sign_out", text: "Sign out", working: "Signing out…", opens: false };
const REFRESH = { action: "refresh", text: "Refresh", working: "Refreshing…", opens: false };
const SHARED = { label: "Card", note: "", working: "", awaited: false, seconds: null, ended: "Over." };
const LINES = ["valid for {left}"];
const WAITING = { ...SHARED, status: "waiting", mark: "○", title: "Sign in", lines: LINES, buttons: [SIGN_IN] };
const SIGNED_IN = { ...WAITING, title: "Alice", buttons: [REFRESH, { ...SIGN_OUT, confirm: CONFIRM }] };

let notebook: HTMLElement;
let model: ReturnType<typeof makeModel>;
let sent: string[];
let look: (el: HTMLElement, isIntersecting: boolean) => void;
let stop: () => void;

// A model whose kernel side is played by the test: `tell` sends a message, `show` a view, `die` stops the kernel.
function makeModel(view: unknown) {
  const listeners = new Map<string, Listener>();
  let statusChanged: ((sender: unknown, status: string) => void) | undefined;
  const signal = { connect: (slot: typeof statusChanged) => (statusChanged = slot), disconnect: () => undefined };
  return {
    get: () => view,
    set: (_trait: string, value: unknown) => sent.push(`status ${String(value)}`),
    save_changes: () => undefined,
    send: (message: unknown) => sent.push((message as { action: string }).action),
    on: (event: string, listener: (...values: never[]) => void) => listeners.set(event, listener as Listener),
    off: (event: string) => listeners.delete(event),
    tell: (message: unknown) => listeners.get("msg:custom")?.(message),
    show: (next: unknown) => {
      view = next;
      listeners.get("change:view")?.();
    },
    die: () => statusChanged?.(null, "dead"),
    widget_manager: { kernel: { statusChanged: signal } as { statusChanged?: typeof signal } },
  };
}

function start(view: unknown, isJupyter = true): HTMLElement {
  sent = [];
  model = makeModel(view);
  if (!isJupyter) model.widget_manager.kernel = {};
  const widget = card();
  stop = widget.initialize({ model });
  const el = document.createElement("div");
  notebook.append(el);
  widget.render({ model, el });
  return el;
}

function click(el: HTMLElement, name: string): void {
  const found = [...el.querySelectorAll<HTMLElement>("a, button")].find((each) => each.textContent.startsWith(name));
  if (!found) throw new Error(`no button ${name}`);
  found.click();
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal(
    "IntersectionObserver",
    class {
      constructor(callback: (entries: unknown[]) => void) {
        look = (el, isIntersecting) => callback([{ target: el.firstElementChild, isIntersecting }]);
      }
      observe = vi.fn();
      unobserve = vi.fn();
      disconnect = vi.fn();
    },
  );
  notebook = document.createElement("div");
  notebook.className = "jp-NotebookPanel-notebook";
  document.body.replaceChildren(notebook);
  notebook.addEventListener("click", (event) => event.preventDefault()); // the address has no listener
});

afterEach(() => {
  stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("the button is a link once the kernel has sent the address, which a page asks for", () => {
  const el = start(WAITING);
  expect(sent).toEqual([""]);
  expect(el.querySelector("a")).toBeNull();

  model.tell({ address: ADDRESS });

  const link = el.querySelector("a");
  expect([link?.href, link?.target, link?.rel]).toEqual([ADDRESS, "_blank", "noopener noreferrer"]);
});

test.each(["javascript:alert(1)", "//evil.example/micromegas/start/a", "/elsewhere"])("%s is no link", (address) => {
  const el = start(WAITING);
  model.tell({ address });
  expect(el.querySelector("a")).toBeNull();
});

test("the server's own page is found below the base URL of the page", () => {
  const config = document.createElement("div");
  config.id = "jupyter-config-data";
  config.textContent = JSON.stringify({ baseUrl: "/user/ann" });
  document.body.append(config);
  const el = start(WAITING);
  model.tell({ address: "/other/micromegas/start/abc.def" });
  expect(el.querySelector("a")?.pathname).toBe("/user/ann/micromegas/start/abc.def");
});

test.each([
  [ADDRESS, true],
  ["", false],
])("a click without an address opens a tab, which ends up at %j", (address, isKept) => {
  const body = { textContent: "" };
  const tab = { document: { body }, location: { replace: vi.fn() }, close: vi.fn(), opener: window };
  vi.stubGlobal("open", () => tab);
  const el = start(WAITING);
  click(el, "Sign in");
  expect([sent.at(-1), tab.opener, tab.document.body.textContent]).toEqual(["sign_in", null, "Starting…"]);

  model.tell({ address });

  expect(tab.location.replace.mock.calls).toEqual(isKept ? [[ADDRESS]] : []);
  expect(tab.close).toHaveBeenCalledTimes(isKept ? 0 : 1);
});

test("where pop-ups are blocked a link appears", () => {
  vi.stubGlobal("open", () => null);
  const el = start(WAITING);
  click(el, "Sign in");
  model.tell({ address: ADDRESS });
  expect(el.querySelector("a")?.href).toBe(ADDRESS);
});

test("after the click the card waits, and helps whoever comes back without a sign-in", () => {
  const el = start({ ...WAITING, opened: "In the other tab.", help: "Register the address." });
  model.tell({ address: ADDRESS });
  click(el, "Sign in");
  vi.advanceTimersByTime(1);
  expect(el.textContent).toContain("In the other tab.");
  expect(el.textContent).not.toContain("Register");

  window.dispatchEvent(new Event("focus"));

  expect(el.textContent).toContain("Register the address.");
});

test("it counts down and replaces the line at the end without a word to the kernel", () => {
  const el = start({ ...WAITING, seconds: 3661 });
  expect(el.textContent).toContain("valid for 1:01:01");
  vi.advanceTimersByTime(3_602_000);
  expect(el.textContent).toContain("valid for 0:59");
  vi.advanceTimersByTime(60_000);
  expect(el.textContent).toContain("Over.");
  expect(el.textContent).not.toContain("valid");
  expect(sent).toEqual([""]);
});

test("signing out has to be confirmed, and another button takes that back", () => {
  const el = start(SIGNED_IN);
  el.querySelector<HTMLElement>("[data-action=sign_out]")?.focus();
  click(el, "Sign out");
  expect(el.textContent).toContain("Other notebooks, too.");
  expect(document.activeElement?.textContent).toBe("Sign out everywhere");
  click(el, "Refresh");
  model.show(SIGNED_IN);
  click(el, "Sign out");
  expect(sent).toEqual(["", "refresh"]);
  click(el, "Sign out everywhere");
  expect(sent).toEqual(["", "refresh", "sign_out"]);
});

test("a press is sent once, a busy kernel is named, and the focus stays on the card", () => {
  const el = start({ ...SIGNED_IN, buttons: [SIGN_OUT] });
  el.querySelector("button")?.focus();
  click(el, "Sign out");
  click(el, "Sign out");
  expect(sent).toEqual(["", "sign_out"]);
  expect(el.textContent).toContain("Signing out…");
  vi.advanceTimersByTime(2000);
  expect(el.textContent).toContain("The kernel is busy.");

  model.show({ ...WAITING, note: "✗ It failed." });

  expect(el.querySelector(".error")?.textContent).toBe("✗ It failed.");
  expect(document.activeElement?.textContent).toBe("Sign in");
});

test("outside Jupyter the page sets the status that cells may depend on", () => {
  start(WAITING, false);
  model.show({ ...SIGNED_IN, status: "signed_in" });
  expect(sent).toEqual(["status waiting", "", "status signed_in"]);
});

test("texts are never markup, and a code is said letter by letter", () => {
  const el = start({ ...WAITING, title: "<img src=x>", code: "AB-1", facts: [["Groups", "<b>"]], summary: "1 group" });
  expect(el.querySelector("img, b")).toBeNull();
  expect(el.querySelector("[role=status]")?.textContent).toBe("<img src=x>AB-1A B - 1");
  expect(el.querySelector("details dd")?.textContent).toBe("<b>");
});

test("a card without its kernel says so, and its one button inserts a cell that connects again", async () => {
  const el = start(SIGNED_IN);
  const heard: unknown[] = [];
  el.addEventListener("micromegas:new-cell", (event) => {
    heard.push((event as CustomEvent).detail);
    event.preventDefault();
  });
  model.die();
  expect(el.querySelectorAll("a, button")).toHaveLength(1);
  expect(el.textContent).toContain("▲No longer connected to the kernel.");
  click(el, "Insert the cell");
  expect(heard).toEqual([{ source: "%load_ext micromegas_jupyter\n%micromegas_login" }]);
  expect(sent).toEqual([""]);
  await vi.waitFor(() => expect(el.textContent).toContain("Inserted below. Run it."));
});

test("while a cell waits out of sight its card is shown at the top of the notebook", () => {
  const el = start({ ...WAITING, awaited: true });
  const pinned = () => notebook.querySelectorAll(".micromegas-pinned").length;
  model.tell({ address: ADDRESS });
  look(el, false);
  expect(pinned()).toBe(1);
  expect(notebook.querySelector<HTMLAnchorElement>(".micromegas-pinned a")?.href).toBe(ADDRESS);
  look(el, true);
  expect(pinned()).toBe(0);
  look(el, false);
  model.show(SIGNED_IN);
  expect(pinned()).toBe(0);
});
