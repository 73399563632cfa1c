import { expect, test, vi } from "vitest";
import explain from "./explain";

const SOURCE = "%%sql\nSELECT '<b>' FROM t";

function start(source: string): HTMLElement {
  const values: Record<string, string> = { code: "SQL001", text: "One.\nTwo.", source };
  const el = document.createElement("div");
  document.body.append(el);
  const model = { get: (name: string) => values[name], on: vi.fn(), off: vi.fn(), send: vi.fn() };
  explain.render({ model, el });
  return el;
}

test("an error is explained, and its corrected cell is text that is inserted", async () => {
  const el = start(SOURCE);
  const heard: unknown[] = [];
  el.addEventListener("micromegas:new-cell", (event) => {
    heard.push((event as CustomEvent).detail);
    event.preventDefault();
  });

  el.querySelector("button")?.click();

  expect(heard).toEqual([{ source: SOURCE }]);
  expect(el.querySelector("pre")?.textContent).toBe(SOURCE);
  await vi.waitFor(() => expect(el.querySelector("[role=status]")?.textContent).toBe("Inserted below."));
  expect([...el.querySelectorAll("p")].map((each) => each.textContent)).toEqual(["Corrected:", "One.", "Two."]);
});

test("where nothing inserts cells, the corrected cell is copied", async () => {
  const el = start(SOURCE);
  const writeText = vi.fn(() => Promise.resolve());
  vi.stubGlobal("navigator", { clipboard: { writeText } });

  el.querySelector("button")?.click();

  await vi.waitFor(() => {
    expect(el.querySelector("[role=status]")?.textContent).toContain("Copied");
  });
  expect(writeText).toHaveBeenCalledWith(SOURCE);
});

test("without a correction there is nothing to insert", () => {
  expect(start("").querySelector("button, pre")).toBeNull();
});
