// The chart above a grid's rows: the kernel side draws the matching rows, Vega-Lite renders in the page, and a
// brush on it filters the rows. The numbers are also shown as a table with a first column that works like a brush.

import { make, makeButton } from "../dom";
import { columnsOf, parseRows, type Row } from "./csv";
import type { ChartOptions, ChartSpec, Column, GridKernel, RowQuery } from "./kernel";

interface View {
  runAsync(): Promise<View>;
  finalize(): void;
  addSignalListener(name: string, listener: (name: string, value: unknown) => void): View;
  signal(name: string, value?: unknown): unknown;
  toImageURL(type: string, scale?: number): Promise<string>;
}

interface Library {
  vega: {
    View: new (runtime: unknown, options: object) => View;
    parse: (spec: unknown, config: unknown, options: object) => unknown;
  };
  compile: (spec: object) => { spec: { signals?: { name: string }[] } };
  expressionInterpreter: unknown;
}

export interface ChartActions {
  /** Filter by the brush's selection; an empty filter clears it. */
  select: (filters: Record<number, string>) => Promise<void>;
  order: () => RowQuery;
  /** Write the chart to a new cell; missing if no statement returned the rows. */
  asCell: ((chart: ChartOptions) => void) | undefined;
  say: (sentence: string) => void;
}

interface Ranges {
  x?: unknown[];
  y?: unknown[];
}

const LIBRARY = Symbol.for("micromegas.vega");
const KINDS = ["line", "area", "bar", "hist", "heat", "point"];
const AGGREGATES = ["count", "sum", "mean", "min", "max", "p50", "p95", "p99", "p50,p95,p99"];
const BINS = ["10", "25", "50", "100", "200"];
const MAX_ROWS = 500;
const MIN_WIDTH = 200;
const MARGIN = 96;
const RESIZE_MILLISECONDS = 150;
const SLOW_MILLISECONDS = 200;
const PICTURE_MILLISECONDS = 800;
const MAX_PICTURE_BYTES = 60_000;
const THEME_ATTRIBUTES = ["class", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"];

/** Load Vega once per page, from the kernel, when a chart is first opened. */
function loadLibrary(kernel: GridKernel): Promise<Library> {
  const page = globalThis as unknown as Record<symbol, Promise<Library> | undefined>;
  const load = async (): Promise<Library> => {
    const { buffers } = await kernel.ask("vega");
    const packed = new Blob(buffers as DataView<ArrayBuffer>[]).stream().pipeThrough(new DecompressionStream("gzip"));
    const url = URL.createObjectURL(new Blob([await new Response(packed).blob()], { type: "text/javascript" }));
    try {
      return (await import(/* @vite-ignore */ url)) as Library;
    } finally {
      URL.revokeObjectURL(url);
    }
  };
  return (page[LIBRARY] ??= load().catch((error: unknown) => {
    page[LIBRARY] = undefined;
    throw error;
  }));
}

export class ChartPanel {
  readonly root: HTMLElement;
  private readonly canvas = make("div", { class: "micromegas-chart-canvas" });
  private readonly tip = make("div", { class: "micromegas-chart-tip", hidden: true });
  private readonly numbers = make("details", { class: "micromegas-chart-numbers" });
  private readonly selects: Record<keyof ChartOptions, HTMLSelectElement>;
  private view: View | undefined;
  private spec: ChartSpec | undefined;
  private rows: Row[][] = [];
  private plot = 0;
  private asked = 0;
  private width = 0;
  /** The filters of the brush; they do not hide the chart's other rows. */
  private brushed: Record<number, string> = {};
  /** The brush's selection. */
  private covered: { panel: number; ranges: Ranges } | undefined;
  /** The other filters when the chart was drawn. */
  private drawnOthers = "[]";
  private pending: { panel: number; ranges: Ranges } | undefined;
  private isSending = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pictureTimer: ReturnType<typeof setTimeout> | undefined;
  private readonly observer = new ResizeObserver(() => this.resized());
  private readonly themes = new MutationObserver(() => void this.restyle());
  private readonly scheme = matchMedia("(prefers-color-scheme: dark)");

  constructor(
    private readonly kernel: GridKernel,
    private readonly columns: Column[],
    private options: ChartOptions,
    private readonly actions: ChartActions,
  ) {
    const names = (kinds: string[]): [string, string][] =>
      columns.flatMap(({ name, kind }, at) => (kinds.includes(kind) ? [[String(at), name] as [string, string]] : []));
    const values = (texts: string[]): [string, string][] => texts.map((text) => [text, text]);
    this.selects = {
      kind: this.select("Kind", values(KINDS)),
      x: this.select("x", names(["time", "number", "text", "boolean"])),
      y: this.select("y", names(["number", "text"])),
      color: this.select("Color", names(["text", "number", "boolean"])),
      agg: this.select("Aggregate", values(AGGREGATES)),
      bins: this.select("Bins", values(BINS)),
      log: this.select("Log", values(["x", "y", "xy"])),
    };
    const labels = Object.values(this.selects).map((select) => make("label", {}, `${select.name} `, select));
    const { asCell } = actions;
    const write = asCell
      ? [makeButton("Chart as cell", () => asCell(this.options), { title: "Write %%sql --plot into a new cell" })]
      : [];
    this.root = make(
      "div",
      { class: "micromegas-chart", role: "group", "aria-label": "Chart", hidden: true },
      make("div", { class: "micromegas-chart-bar" }, ...labels, ...write),
      this.canvas,
      this.numbers,
      this.tip,
    );
    this.numbers.addEventListener("toggle", () => this.showNumbers());
    this.observer.observe(this.root);
    this.themes.observe(document.body, { attributes: true, attributeFilter: THEME_ATTRIBUTES });
    this.scheme.addEventListener("change", this.schemeChanged);
  }

  close(): void {
    clearTimeout(this.timer);
    clearTimeout(this.pictureTimer);
    this.observer.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.schemeChanged);
    this.view?.finalize();
  }

  /** Open or close the chart; returns whether it is open. */
  toggle(): boolean {
    this.root.hidden = !this.root.hidden;
    if (!this.root.hidden) void this.draw();
    return !this.root.hidden;
  }

  /** Draw the matching rows, unless only the chart's own brush has changed. */
  filtersChanged(filters: Record<number, string>): void {
    const isOwn = Object.entries(this.brushed).every(([column, typed]) => (filters[Number(column)] ?? "") === typed);
    const others = Object.keys(filters).filter((column) => !(column in this.brushed));
    const isSame = isOwn && JSON.stringify(others.map((at) => filters[Number(at)])) === this.drawnOthers;
    if (!isOwn) this.brushed = {};
    if (!isSame && !this.root.hidden) void this.draw();
  }

  private select(name: string, options: [string, string][]): HTMLSelectElement {
    const select = make("select", { name }, make("option", { value: "" }, "auto"));
    select.append(...options.map(([value, text]) => make("option", { value }, text)));
    select.addEventListener("change", () => this.changed());
    return select;
  }

  private changed(): void {
    const value = (key: keyof ChartOptions): string => this.selects[key].value;
    const column = (key: "x" | "y" | "color"): number[] => {
      const known = this.options[key] ?? [];
      return value(key) === String(known[0] ?? "") ? known : value(key) ? [Number(value(key))] : [];
    };
    this.options = {
      kind: value("kind") || null,
      x: column("x"),
      y: column("y"),
      color: column("color"),
      agg: value("agg") ? value("agg").split(",") : null,
      bins: value("bins") ? Number(value("bins")) : null,
      log: value("log") || null,
    };
    void this.draw();
  }

  private resized(): void {
    const width = this.root.clientWidth;
    if (this.root.hidden || Math.abs(width - this.width) < 8) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.draw(), this.view ? RESIZE_MILLISECONDS : 0);
  }

  /** Draw again; only the last of several requests counts. */
  private async draw(): Promise<void> {
    const width = this.root.clientWidth;
    if (width < MIN_WIDTH) return; // not in the page yet
    this.width = width;
    const number = ++this.asked;
    const order = this.actions.order();
    const ignored = Object.keys(this.brushed).map(Number);
    const others = Object.entries(order.filters).filter(([column]) => !ignored.includes(Number(column)));
    this.drawnOthers = JSON.stringify(others.map(([, typed]) => typed));
    if (!this.view) this.canvas.replaceChildren(make("p", { class: "micromegas-chart-empty" }, "Loading the chart…"));
    const slow = setTimeout(() => this.root.classList.add("micromegas-chart-busy"), SLOW_MILLISECONDS);
    try {
      const [{ answer }, library] = await Promise.all([
        this.kernel.ask("chart", { chart: this.options, order, width: width - MARGIN, ignored }),
        loadLibrary(this.kernel),
      ]);
      if (number !== this.asked) return;
      this.plot = answer.plot;
      this.showChosen(answer.chosen);
      this.rows = answer.spec.vconcat.map(({ data }) => parseRows(String(data.values), data.format?.parse ?? {}));
      this.spec = {
        ...answer.spec,
        // Vega would create a function to parse the text, which a page may forbid.
        vconcat: answer.spec.vconcat.map((panel, at) => ({ ...panel, data: { values: this.rows[at] } })),
      };
      this.canvas.setAttribute("aria-label", answer.text);
      await this.render(library, number);
      this.showNumbers();
    } catch (error) {
      if (number !== this.asked) return;
      // A chart of rows that no longer match would be wrong.
      this.view?.finalize();
      this.view = this.spec = undefined;
      this.rows = [];
      this.canvas.replaceChildren(make("p", { class: "micromegas-chart-empty" }, (error as Error).message));
      this.showNumbers();
    } finally {
      clearTimeout(slow);
      if (number === this.asked) this.root.classList.remove("micromegas-chart-busy");
    }
  }

  /** Show the defaults that were used for missing options. */
  private showChosen(chosen: ChartOptions): void {
    const name = (at: number): string => this.columns[at]?.name ?? "";
    const texts: Record<keyof ChartOptions, string> = {
      kind: chosen.kind ?? "",
      x: (chosen.x ?? []).map(name).join(", "),
      y: (chosen.y ?? []).map(name).join(", ") || "rows",
      color: (chosen.color ?? []).map(name).join(", ") || "none",
      agg: (chosen.agg ?? []).join(",") || "each row",
      bins: "",
      log: "none",
    };
    for (const [key, select] of Object.entries(this.selects) as [keyof ChartOptions, HTMLSelectElement][]) {
      const given = this.options[key];
      const list = Array.isArray(given)
        ? key === "agg"
          ? given.join(",")
          : String(given[0] ?? "")
        : String(given ?? "");
      if (list && ![...select.options].some((option) => option.value === list))
        select.append(make("option", { value: list }, list));
      select.value = list;
      const [auto] = select.options;
      if (auto) auto.textContent = texts[key] ? `auto: ${texts[key]}` : "auto";
    }
  }

  private readonly schemeChanged = (): void => void this.restyle();

  private async restyle(): Promise<void> {
    if (this.spec && !this.root.hidden) await this.render(await loadLibrary(this.kernel), this.asked);
  }

  private async render(library: Library, number: number): Promise<void> {
    const { spec } = this;
    if (!spec) return;
    const old = this.view;
    const place = make("div");
    const names = spec.params.filter(({ name }) => name.startsWith("brush_")).map(({ name }) => name);
    const view = start(library, this.withBrush(themed(spec, this.root)), { container: place, tooltip: this.showTip });
    await view.runAsync();
    if (number !== this.asked) {
      view.finalize();
      return;
    }
    this.canvas.style.minHeight = `${this.canvas.offsetHeight}px`; // keeps elements below in place
    this.canvas.replaceChildren(place);
    await this.fill(view);
    this.canvas.style.minHeight = "";
    old?.finalize();
    this.view = view;
    for (const name of names) {
      const panel = Number(name.slice("brush_panel_".length)) - 1;
      view.addSignalListener(name, (_name, value) => this.brush(panel, value as Record<string, unknown>));
    }
    clearTimeout(this.pictureTimer);
    this.pictureTimer = setTimeout(() => void this.sendPicture(library, number), PICTURE_MILLISECONDS);
  }

  /** Keep a brush in place while something else changes. */
  private withBrush(spec: ChartSpec): ChartSpec {
    if (!this.covered || Object.keys(this.brushed).length === 0) return spec;
    const { panel, ranges } = this.covered;
    const isIt = (name: string): boolean => name === `brush_panel_${panel + 1}`;
    const params = spec.params.map((param) => {
      if (!isIt(param.name)) return param;
      const value = param.select?.type === "point" ? [{ x: ranges.x?.[0] }] : ranges;
      return { ...param, value };
    });
    return { ...spec, params };
  }

  /** Fit the panels to the width that axes and legends leave. */
  private async fill(view: View): Promise<void> {
    const drawn = this.canvas.querySelector("canvas")?.offsetWidth ?? 0;
    const missing = this.canvas.clientWidth - drawn - 4;
    for (const name of ["width", "childWidth"]) {
      const width = signalOf(view, name);
      if (drawn && missing && typeof width === "number" && width > 0) view.signal(name, Math.max(width + missing, 100));
    }
    await view.runAsync();
  }

  private brush(panel: number, value: Record<string, unknown>): void {
    const ranges: Ranges = {};
    for (const axis of ["x", "y"] as const) {
      const ends = value[axis];
      if (Array.isArray(ends)) ranges[axis] = ends.map((end: unknown) => (typeof end === "string" ? end : Number(end)));
    }
    this.pending = { panel, ranges };
    if (!this.isSending) void this.sendBrush();
  }

  /** One request at a time while a brush moves, always for the latest position. */
  private async sendBrush(): Promise<void> {
    this.isSending = true;
    try {
      while (this.pending) {
        const { panel, ranges } = this.pending;
        this.covered = this.pending;
        this.pending = undefined;
        const { answer } = await this.kernel.ask("brush", { plot: this.plot, panel, ranges });
        const cleared = Object.fromEntries(Object.keys(this.brushed).map((column) => [column, ""]));
        const filters = { ...cleared, ...answer.filters };
        this.brushed = Object.fromEntries(Object.entries(answer.filters).filter(([, typed]) => typed));
        await this.actions.select(filters);
      }
    } catch (error) {
      this.actions.say((error as Error).message);
    } finally {
      this.isSending = false;
    }
  }

  /** Text only: result values must not become part of the page as markup. */
  private readonly showTip = (_handler: unknown, event: MouseEvent, _item: unknown, value: unknown): void => {
    this.tip.hidden = typeof value !== "object" || value === null;
    if (this.tip.hidden) return;
    const lines = Object.entries(value as Record<string, unknown>);
    this.tip.replaceChildren(...lines.map(([name, text]) => make("div", {}, `${name}: `, make("b", {}, String(text)))));
    const frame = this.root.getBoundingClientRect();
    const left = event.clientX - frame.left + 14;
    const isLeft = left + this.tip.offsetWidth > frame.width;
    this.tip.style.left = `${isLeft ? Math.max(left - this.tip.offsetWidth - 28, 0) : left}px`;
    this.tip.style.top = `${event.clientY - frame.top + 12}px`;
  };

  /** Create the table of numbers when it is first shown. */
  private showNumbers(): void {
    const summary = this.numbers.querySelector("summary") ?? make("summary", {}, "Numbers of the chart");
    this.numbers.hidden = !this.spec;
    const tables = this.numbers.open && this.spec ? this.spec.vconcat.map((panel, at) => this.table(panel, at)) : [];
    this.numbers.replaceChildren(summary, ...tables);
  }

  private table(panel: ChartSpec["vconcat"][number], at: number): HTMLElement {
    const rows = this.rows[at] ?? [];
    const columns = columnsOf(panel.encoding, rows[0] ?? {});
    const head = make("tr", {}, ...columns.map(({ title }) => make("th", { scope: "col" }, title)));
    const body = rows.slice(0, MAX_ROWS).map((row) => {
      const cells = columns.map(({ field, text }) => make(field === "x" ? "th" : "td", {}, text(row)));
      const [first] = cells;
      if (first) {
        const { x, x2 } = row;
        const ends = typeof x === "number" ? [x, typeof x2 === "number" ? x2 : x] : [x ?? ""];
        first.replaceChildren(
          makeButton(first.textContent, () => this.brush(at, { x: ends }), { title: "Only these rows" }),
        );
        first.setAttribute("scope", "row");
      }
      return make("tr", {}, ...cells);
    });
    const caption = rows.length > MAX_ROWS ? ` (the first ${MAX_ROWS} of ${rows.length.toLocaleString("en")})` : "";
    const table = make("table", {}, make("caption", {}, `${columns.at(-1)?.title ?? ""}${caption}`));
    table.append(make("thead", {}, head), make("tbody", {}, ...body));
    return make("div", { class: "micromegas-chart-table", tabindex: 0, role: "group", "aria-label": "Numbers" }, table);
  }

  /** Give the notebook a small image to save, in the light theme. */
  private async sendPicture(library: Library, number: number): Promise<void> {
    const { spec } = this;
    if (!spec || number !== this.asked) return;
    const view = start(library, { ...spec, background: "white" }, { renderer: "none" });
    await view.runAsync();
    for (const scale of [1.5, 1, 0.75, 0.5, 0.35]) {
      const data = (await view.toImageURL("png", scale)).split(",")[1] ?? "";
      if (data.length > MAX_PICTURE_BYTES) continue;
      const detail = { data, text: spec.description };
      if (number === this.asked)
        this.root.dispatchEvent(new CustomEvent("micromegas:picture", { bubbles: true, composed: true, detail }));
      break;
    }
    view.finalize();
  }
}

/** Parsed into trees and interpreted, so that it works in pages that forbid unsafe-eval. */
function start({ vega, compile, expressionInterpreter }: Library, spec: object, options: object): View {
  const runtime = vega.parse(compile(spec).spec, null, { ast: true });
  return new vega.View(runtime, { renderer: "canvas", hover: true, expr: expressionInterpreter, ...options });
}

function signalOf(view: View, name: string): unknown {
  try {
    return view.signal(name);
  } catch {
    return undefined; // the signal does not exist
  }
}

/** Return a specification with the page's colors. */
function themed(spec: ChartSpec, root: HTMLElement): ChartSpec & { background: string } {
  const { color, fontFamily, borderTopColor: line } = getComputedStyle(root);
  const config = spec.config as { axis?: object; title?: object; legend?: object };
  const texts = { labelColor: color, titleColor: color };
  const axis = { ...config.axis, ...texts, domainColor: line, tickColor: line, gridColor: line };
  const title = { ...config.title, color, subtitleColor: color };
  const legend = { ...config.legend, ...texts };
  const view = { stroke: line };
  return { ...spec, background: "transparent", config: { ...config, font: fontFamily, axis, title, legend, view } };
}
