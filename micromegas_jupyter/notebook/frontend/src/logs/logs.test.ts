// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from "vitest";
import logs from "./logs";
import type { Detail, State } from "./messages";

const SCRIPT = "<img src=x onerror=alert(1)>";
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const STATE: State = {
  begin: 1_700_000_000_000_000,
  width: 1_000_000,
  bars: [
    [0, 1, 0, 0, 0, 0],
    [0, 0, 0, 2, 0, 0],
  ],
  total: 20_003,
  skipped: 20_000,
  first: 20_000,
  next: 20_003,
  is_following: true,
  level: 6,
  search: "",
  filters: [[SCRIPT, SCRIPT, true]],
  error: "",
  tail: {
    first: 20_000,
    lines: [
      ["10:00:00", 2, SCRIPT, SCRIPT, SCRIPT],
      ["10:00:01", 4, "shop", "net", "one"],
      ["10:00:02", 4, "shop", "net", "two"],
    ],
  },
};
const DETAIL: Detail = {
  line: 20_002,
  time: "2026-01-01T10:00:02.000000000Z",
  level: 4,
  message: SCRIPT,
  values: [[SCRIPT, SCRIPT]],
  trace_id: TRACE,
};

type Message = Record<string, unknown>;

/** A view whose kernel returns the same reply to each operation. */
function start(answers: Record<string, object> = {}) {
  const listeners = new Set<(message: Message) => void>();
  const sent: Message[] = [];
  const all: Record<string, object> = { detail: DETAIL, ...answers };
  const tell = (message: Message): void => [...listeners].forEach((listener) => listener(message));
  const el = document.createElement("div");
  document.body.append(el);
  const model = {
    get: () => "",
    on: (_: string, listener: (message: Message) => void) => listeners.add(listener),
    off: (_: string, listener: (message: Message) => void) => listeners.delete(listener),
    send: (message: Message) => {
      sent.push(message);
      const op = message.op as string;
      if (message.id !== 0) queueMicrotask(() => tell({ id: message.id, answer: all[op] ?? STATE }));
    },
  };
  const close = logs.render({ model, el } as never);
  const press = (selector: string, key: string, shiftKey = false): void => {
    el.querySelector(selector)?.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
  };
  const button = (name: string): HTMLButtonElement | undefined =>
    [...el.querySelectorAll("button")].find((each) => each.textContent === name);
  return { el, sent, tell, close, press, button };
}

afterEach(() => document.body.replaceChildren());

test("lines, filters, properties, and patterns of a hostile sender are text", async () => {
  const { el, press, button, close } = start({ patterns: { patterns: [[SCRIPT, 3, 2]], count: 1 } });
  await vi.waitFor(() => expect(el.querySelectorAll("[role=option]")).toHaveLength(3));
  press("[role=listbox]", "End");
  await vi.waitFor(() => expect(el.querySelector("pre")?.textContent).toBe(SCRIPT));
  expect(el.querySelector("th")?.textContent).toBe(SCRIPT);
  button("Patterns")?.click();
  await vi.waitFor(() => expect(el.querySelector("h3")?.textContent).toBe("1 patterns"));

  expect(el.querySelector("img")).toBeNull();
  expect(el.querySelector(".micromegas-logs-chips")?.textContent).toContain(SCRIPT);
  expect(el.querySelector("[role=status]")?.textContent).toBe("20,003 lines · 20,000 older ones not shown");
  el.innerHTML = SCRIPT; // the control
  expect(el.querySelector("img")).not.toBeNull();
  close();
});

test("a line is selected, filtered by, and followed to its trace by keyboard", async () => {
  const { el, sent, press, button, close } = start();
  await vi.waitFor(() => expect(el.querySelectorAll("[role=option]")).toHaveLength(3));
  const inserted: unknown[] = [];
  el.addEventListener("micromegas:new-cell", (event) => {
    inserted.push((event as CustomEvent).detail);
    event.preventDefault();
  });
  press("[role=listbox]", "ArrowUp");
  press("[role=listbox]", "ArrowUp");
  press("[role=listbox]", "ArrowDown");
  await vi.waitFor(() => expect(button("Its trace")).toBeDefined());
  expect(el.querySelector("[aria-selected=true]")?.textContent).toContain("two");
  button("Its trace")?.click();
  await vi.waitFor(() => expect(inserted).toEqual([{ source: `%micromegas_trace ${TRACE}` }]));

  button("Not")?.click();
  expect(sent.at(-1)).toMatchObject({ op: "filter", line: 20_002, key: SCRIPT, is_excluded: true });
  await vi.waitFor(() => expect(el.querySelector<HTMLElement>("[aria-label=Details]")?.hidden).toBe(true));
  close();
});

test("bars are chosen by keyboard, and an error leaves the view as it was", async () => {
  const { el, sent, tell, press, close } = start();
  await vi.waitFor(() => expect(el.querySelectorAll("[role=option]")).toHaveLength(3));
  press("canvas", "Home");
  press("canvas", "ArrowRight", true);
  expect(el.querySelector("canvas")?.getAttribute("aria-valuetext")).toContain("1 ERROR, 2 INFO");
  press("canvas", "Enter");
  const asked = sent.at(-1);
  expect(asked).toMatchObject({ op: "range", begin: STATE.begin, end: STATE.begin + 2 * STATE.width });
  close();

  const other = start();
  await vi.waitFor(() => expect(other.el.querySelectorAll("[role=option]")).toHaveLength(3));
  other.tell({ news: { ...STATE, error: "The server stopped.", is_following: false } });
  expect(other.el.querySelector("[role=alert]")?.textContent).toBe("The server stopped.");
  expect(other.button("Follow")?.getAttribute("aria-pressed")).toBe("false");
  tell({ news: STATE }); // a closed view ignores news
  other.close();
  expect(other.sent.at(-1)).toMatchObject({ op: "leave" });
  expect(other.sent[0]).toMatchObject({ op: "watch" });
});
