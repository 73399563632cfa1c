// @vitest-environment happy-dom
import { describe, expect, test, vi } from "vitest";
import type { Model } from "../widget";
import { BLOCK_ROWS, Blocks } from "./blocks";
import { Header } from "./header";
import { Kernel, type Column, type RowQuery, type Texts } from "./kernel";

const SORTED: RowQuery = { filters: {}, sort: [[0, true]] };

/** A kernel whose answers come when a test says so. */
class LateKernel {
  asked: { order: RowQuery; first: number }[] = [];
  private answers: ((texts: Texts | Error) => Promise<void>)[] = [];

  readonly ask = (_op: string, details: object = {}): Promise<never> => {
    this.asked.push(details as { order: RowQuery; first: number });
    return new Promise((resolve, reject) => {
      this.answers.push((found) => {
        if (found instanceof Error) reject(found);
        else resolve({ answer: { total: 100_000, texts: found }, buffers: [] } as never);
        return Promise.resolve().then(() => undefined);
      });
    });
  };

  async answer(question: number, texts: Texts | Error): Promise<void> {
    await this.answers[question]?.(texts);
    await Promise.resolve();
  }

  blocks(): number[] {
    return this.asked.map(({ first }) => first / BLOCK_ROWS);
  }
}

function blocksOf(kernel: LateKernel, onError = vi.fn()): Blocks {
  return new Blocks(kernel, 100_000, [["first"]], vi.fn(), onError);
}

describe("blocks", () => {
  test("who drags past many rows gets those where the drag ends next", async () => {
    const kernel = new LateKernel();
    const blocks = blocksOf(kernel);
    for (let row = 0; row < 90_000; row += BLOCK_ROWS) blocks.need(row, row + 15);
    expect(kernel.blocks()).toEqual([0, 1]);

    await kernel.answer(0, [["a"]]);
    await kernel.answer(1, [["b"]]);

    expect(kernel.blocks()).toEqual([0, 1, 449, 450]);
    expect([blocks.text(0, 0), blocks.text(BLOCK_ROWS, 0), blocks.text(89_800, 0)]).toEqual(["a", "b", undefined]);
  });

  test("rows of an order that is gone are not shown", async () => {
    const kernel = new LateKernel();
    const blocks = blocksOf(kernel);
    blocks.need(400, 410);
    const arranged = blocks.arrange(SORTED);
    await kernel.answer(2, [["sorted"]]);
    await kernel.answer(0, [["old"]]);

    expect(await arranged).toBe(true);
    expect([blocks.text(0, 0), blocks.text(400, 0)]).toEqual(["sorted", undefined]);
    blocks.need(400, 410);
    expect(kernel.asked.at(-1)?.order).toBe(SORTED);
  });

  test("of several orders the last one counts, and a refused one changes nothing", async () => {
    const kernel = new LateKernel();
    const blocks = blocksOf(kernel);
    const [one, other] = [blocks.arrange({ filters: { 0: "x" }, sort: [] }), blocks.arrange(SORTED)];
    await kernel.answer(1, [["sorted"]]);
    await kernel.answer(0, [["filtered"]]);
    expect(await Promise.all([one, other])).toEqual([false, true]);

    const refused = blocks.arrange({ filters: { 0: "y" }, sort: [] });
    await kernel.answer(2, new Error("No."));
    await expect(refused).rejects.toThrow("No.");
    expect([blocks.order, blocks.text(0, 0)]).toEqual([SORTED, "sorted"]);
  });

  test("a block that cannot be had is said once and asked for when it is needed again", async () => {
    const kernel = new LateKernel();
    const onError = vi.fn();
    const blocks = blocksOf(kernel, onError);
    blocks.need(0, 10);
    await kernel.answer(0, new Error("gone"));
    expect(onError).toHaveBeenCalledTimes(1);
    expect(kernel.blocks()).toEqual([0, 1]);
    blocks.need(0, 10);
    expect(kernel.blocks()).toEqual([0, 1, 0]);
  });
});

function modelOf(): { model: Model; sent: { id: number }[]; hear: (reply: object) => void } {
  const sent: { id: number }[] = [];
  const listeners = new Set<(reply: object) => void>();
  const model: Model = {
    get: () => undefined,
    on: (_event, listener) => void listeners.add(listener as never),
    off: (_event, listener) => void listeners.delete(listener as never),
    send: (content) => void sent.push(content as { id: number }),
  };
  return { model, sent, hear: (reply) => [...listeners].forEach((listener) => listener(reply)) };
}

describe("kernel", () => {
  test("each question gets its own answer, in any order, and each view its own", async () => {
    const { model, sent, hear } = modelOf();
    const [kernel, other] = [new Kernel(model), new Kernel(model)];
    const asked = [kernel.ask("statistics", { column: 0 }), kernel.ask("value"), other.ask("value")];
    const [statistics, value, others] = sent.map(({ id }) => id);

    hear({ id: others, answer: "others" });
    hear({ id: value, answer: "value" });
    hear({ id: value, answer: "again" });
    hear({ id: statistics, error: "No." });
    hear({});

    await expect(asked[0]).rejects.toThrow("No.");
    expect([(await asked[1])?.answer, (await asked[2])?.answer]).toEqual(["value", "others"]);
  });

  test("a kernel that is gone is said after a while", async () => {
    vi.useFakeTimers();
    const { model } = modelOf();
    const asked = new Kernel(model).ask("value");
    vi.runAllTimers();
    vi.useRealTimers();
    await expect(asked).rejects.toThrow("Run the cell again.");
  });
});

const COLUMN: Column = {
  name: "<b>size</b>",
  type: "bigint",
  arrow_type: "int64",
  kind: "number",
  unit: "bytes",
  nulls: 1,
  sortable: true,
};

function headerOf(column: Partial<Column> = {}): { header: Header; calls: unknown[][] } {
  const calls: unknown[][] = [];
  const note =
    (name: string) =>
    (...values: unknown[]): void =>
      void calls.push([name, ...values]);
  const actions = { sort: note("sort"), filter: note("filter"), resize: note("resize"), hide: note("hide") };
  return { header: new Header({ ...COLUMN, ...column }, 3, 4, actions), calls };
}

describe("header", () => {
  test("names, types, units, nulls and values are texts", () => {
    const { header } = headerOf();
    header.showStatistics({
      distinct: 2,
      min: "<i>",
      max: "9",
      bars: [0, 5],
      bins: ["1", "2", "3"],
      top: [["<u>", 5]],
      hint: "> 5",
    });

    expect(header.filter.placeholder).toBe("> 5");
    expect(header.cell.querySelector("b, i, u")).toBeNull();
    expect(header.cell.textContent).toContain("<b>size</b>");
    expect(header.cell.textContent).toContain("bigint · bytes · 25% null");
    expect([...header.cell.querySelectorAll("rect title")].map((title) => title.textContent)).toEqual([
      "1 to 2: 0",
      "2 to 3: 5",
    ]);
  });

  test("a click sorts, with Shift it adds, and a column without an order stays as it is", () => {
    const { header, calls } = headerOf();
    header.nameButton.click();
    header.nameButton.dispatchEvent(new MouseEvent("click", { shiftKey: true }));
    header.showOrder(1, true, 2);
    expect(calls).toEqual([
      ["sort", 3, false],
      ["sort", 3, true],
    ]);
    expect([header.cell.getAttribute("aria-sort"), header.nameButton.textContent]).toEqual([
      "descending",
      "<b>size</b>▼2",
    ]);
    const unsortable = headerOf({ sortable: false });
    unsortable.header.nameButton.click();
    expect(unsortable.calls).toEqual([]);
    expect(unsortable.header.cell.hasAttribute("aria-sort")).toBe(false);
  });

  test("a filter is sent once typing pauses, and a refused one is marked", () => {
    vi.useFakeTimers();
    const { header, calls } = headerOf();
    for (const typed of [">", "> 5 "]) {
      header.filter.value = typed;
      header.filter.dispatchEvent(new Event("input"));
    }
    vi.runAllTimers();
    vi.useRealTimers();
    expect(calls).toEqual([["filter", 3, "> 5"]]);
    header.showFilterError("No.");
    expect([header.filter.getAttribute("aria-invalid"), header.filter.title]).toEqual(["true", "No."]);
    header.showFilterError("");
    expect(header.filter.title).toContain("= null");
  });
});
