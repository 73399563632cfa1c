// @vitest-environment happy-dom
import { describe, expect, test, vi } from "vitest";
import { Kernel } from "../base/kernel";
import type { Model } from "../widget";
import { BLOCK_ROWS, Blocks } from "./blocks";
import { columnsOf, parseRows } from "./csv";
import { Header } from "./header";
import type { Column, GridAnswers, RowQuery, Texts } from "./kernel";

const SORTED: RowQuery = { filters: {}, sort: [[0, true]] };

/** A kernel that replies when a test tells it to. */
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
    const [kernel, other] = [new Kernel<GridAnswers>(model), new Kernel<GridAnswers>(model)];
    const asked = [kernel.ask("spreads", { columns: [0] }), kernel.ask("value"), other.ask("value")];
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
    const asked = new Kernel<GridAnswers>(model).ask("value");
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
  const actions = {
    sort: note("sort"),
    filter: note("filter"),
    resize: note("resize"),
    hide: note("hide"),
    pickBars: note("bars"),
    pickTop: note("top"),
  };
  return { header: new Header({ ...COLUMN, ...column }, 3, 4, actions), calls };
}

describe("header", () => {
  test("names, types, units, nulls and values are texts", () => {
    const { header } = headerOf();
    header.showSpread({
      distinct: 2,
      min: "<i>",
      max: "9",
      ends: ["<i>", "9"],
      bars: [0, 5],
      matching: [0, 2],
      bins: ["1", "2", "3"],
      top: [["<u>", 2, 5]],
      hint: "> 5",
    });

    expect(header.filter.placeholder).toBe("> 5");
    expect(header.cell.querySelector("b, i, u")).toBeNull();
    expect(header.cell.textContent).toContain("<b>size</b>");
    expect(header.cell.textContent).toContain("bigint · bytes · 25% null");
    expect([...header.cell.querySelectorAll("rect title")].map((title) => title.textContent)).toEqual([
      "1 to 2: 0 of 0",
      "2 to 3: 2 of 5",
    ]);
  });

  test("a top value and bars are picked by click and by keyboard", () => {
    const { header, calls } = headerOf();
    header.showSpread({
      distinct: 2,
      min: "1",
      max: "9",
      ends: ["1", "9"],
      bars: [1, 5, 2],
      matching: [],
      bins: ["1", "2", "3", "4"],
      top: [["<u>", 5, 5]],
      hint: "",
    });
    header.setReachable(true);
    const bars = header.cell.querySelector<HTMLElement>("[role=slider]");
    for (const [key, shiftKey] of [
      ["ArrowRight", false],
      ["ArrowRight", true],
      ["Enter", false],
    ] as const)
      bars?.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
    header.cell.querySelector<HTMLElement>(".micromegas-grid-top-value")?.click();

    expect(bars?.tabIndex).toBe(0);
    expect(bars?.getAttribute("aria-valuetext")).toBe("3 to 4: 2");
    expect(calls).toEqual([
      ["bars", 3, [1, 2]],
      ["top", 3, 0],
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

test("a restarted kernel is explained, and nothing waits for it", async () => {
  vi.useFakeTimers();
  const send = (): never => {
    throw new Error("Cannot send");
  };
  const kernel = new Kernel<GridAnswers>({ on: vi.fn(), off: vi.fn(), get: vi.fn(), send });
  await expect(kernel.ask("rows")).rejects.toThrow("The kernel no longer has these rows. Run the cell again.");
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

describe("numbers of a chart", () => {
  test("texts with quotes, commas and line breaks stay as they are, and what is not a number is empty", () => {
    const text = 'x,series,y\n1.5e12,"a ""b"", c\nd",2\n3,,nan\n';
    expect(parseRows(text, { x: "number", series: "string", y: "number" })).toEqual([
      { x: 1.5e12, series: 'a "b", c\nd', y: 2 },
      { x: 3, series: "", y: null },
    ]);
  });

  test("times are written in UTC with the columns' titles", () => {
    const encoding = {
      x: { field: "x", type: "temporal", title: "time (UTC)" },
      x2: { field: "x2" },
      y: { field: "y", type: "quantitative", title: "rows" },
    };
    const row = { x: 1_793_491_200_000, x2: 1_793_491_200_500, y: 1234.5 };
    const columns = columnsOf(encoding, row);
    expect(columns.map(({ title }) => title)).toEqual(["time (UTC)", "to", "rows"]);
    expect(columns.map(({ text }) => text(row))).toEqual(["2026-11-01 00:00:00", "2026-11-01 00:00:00.500", "1,234.5"]);
  });
});
