import { beforeEach, expect, test } from "vitest";

import widget from "./tables";

const TABLES = [
  {
    name: "log_entries",
    remarks: "What programs logged",
    columns: [
      ["time", "timestamp", ""],
      ["Level", "int", ""],
    ],
  },
  { name: "constructor", remarks: "", columns: [["realname", "text", ""]] },
];

let sent: unknown[];
let traits: Record<string, unknown>;
let changed: () => void;

beforeEach(() => {
  sent = [];
  traits = { server: "lake", title: "2 tables of lake", search: "", tables: TABLES, facts: { log_entries: "3 rows" } };
  document.body.replaceChildren();
  widget.render({
    model: {
      get: (name) => traits[name],
      on: (_event, listener) => (changed = listener),
      off: () => undefined,
      send: (content) => sent.push(content),
    },
    el: document.body,
  });
});

const texts = (selector: string): (string | null)[] =>
  [...document.querySelectorAll<HTMLElement>(selector)]
    .filter((element) => !element.closest("[hidden]"))
    .map((element) => element.textContent);

function search(text: string): void {
  const input = document.querySelector("input");
  if (!input) throw new Error("no search");
  input.value = text;
  input.dispatchEvent(new Event("input"));
}

test("the search finds tables by name and by column, and closes again what it opened", () => {
  search("REAL*me");
  expect(texts("summary code")).toEqual(["constructor"]);
  expect(texts("td code")).toEqual(["realname"]);
  expect(texts(".micromegas-tables-status")).toEqual(["1 of 2 tables match"]);
  expect(sent).toEqual([]);

  search("");
  expect(texts("summary code")).toEqual(["log_entries", "constructor"]);
  expect(document.querySelectorAll("details[open]")).toHaveLength(0);
  expect(texts(".micromegas-tables-status")).toEqual(["2 tables of lake"]);
});

test("a table that a person opens is counted once, unless its facts are known", () => {
  const [known, unknown] = document.querySelectorAll<HTMLElement>("summary");

  known?.click();
  unknown?.click();
  expect(sent).toEqual([{ open: "constructor" }]);
  expect(texts("[role=status]").slice(1)).toEqual(["3 rows", "Counting…"]);

  traits.facts = { constructor: "5 rows" };
  changed();
  expect(texts(".micromegas-tables-known")).toEqual(["3 rows", "5 rows"]);
});

test("the copied statement quotes names that need it, and says when the page may not copy", async () => {
  const copied: string[] = [];
  const writeText = (text: string): Promise<void> =>
    copied.push(text) === 1 ? Promise.resolve() : Promise.reject(new Error("not allowed"));
  Object.defineProperty(navigator, "clipboard", { value: { writeText } });
  const button = [...document.querySelectorAll("button")].find((each) => each.textContent === "Copy SELECT");

  button?.click();
  await expect.poll(() => texts(".micromegas-tables-status")).toEqual([`Copied ${copied[0] ?? ""}`]);
  button?.click();
  await expect.poll(() => texts(".micromegas-tables-status")[0]).toContain("does not let this page copy");

  expect(copied[0]).toBe('SELECT time, "Level" FROM log_entries');
});
