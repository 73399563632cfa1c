// A trace as a waterfall, a flame graph, and a table, or merged call paths as the latter two. The kernel side,
// notebook/trace_view.py, does the computation; this side does layout and painting.

import { openTrace, suppressShortcuts } from "../base/cells";
import { Kernel } from "../base/kernel";
import { watchTheme } from "../base/theme";
import { make, makeButton } from "../dom";
import type { Model, RenderContext } from "../widget";
import { drawDetails, type Details } from "./details";
import { arrangeRows, CRITICAL, ERROR, exactTime, ORPHAN, shortTime, type Rows, type Spans } from "./layout";
import { MAP, Painter, ROW, TOP, type Scene } from "./painter";

interface Answers {
  spans: { names: string[]; services: string[]; total: number };
  details: Details;
  search: { spans: number[] };
}

type View = "waterfall" | "flame" | "table";

const TITLES: Record<View, string> = { waterfall: "Waterfall", flame: "Flame graph", table: "Table" };
const MAX_HEIGHT = 380;
const MIN_LINES = 4;
const PAGE = 100;
const MIN_NANOSECONDS = 20;
const DETAILS_DELAY = 120;
const MIN_DRAG = 4;
const HELP =
  "Arrow keys select spans, W and S zoom, A and D move, 0 shows all, Enter zooms to the span, E selects the next " +
  "error, P the next span on the critical path, N the next match, slash searches.";

export default {
  render({ model, el }: RenderContext): () => void {
    const view = new TraceView(model);
    el.append(view.root);
    return () => view.close();
  },
};

class TraceView {
  readonly root: HTMLElement;
  private readonly kernel: Kernel<Answers>;
  private readonly isTrace: boolean;
  private readonly painter = new Painter({ tabindex: 0, role: "application", "aria-label": `Spans. ${HELP}` });
  private readonly tip = make("div", { class: "micromegas-trace-tip", "aria-hidden": "true", hidden: true });
  private readonly live = make("div", { class: "micromegas-trace-live", role: "status" });
  private readonly message = make("div", { class: "micromegas-trace-message", role: "alert" });
  private readonly found = make("span", { role: "status" });
  private readonly search = make("input", {
    type: "search",
    placeholder: "Search spans",
    "aria-label": "Search spans",
  });
  private readonly stage: HTMLElement;
  private readonly details = group("micromegas-trace-details", "Selected span");
  private readonly table = group("micromegas-trace-table", "Spans as a table");
  private readonly buttons = new Map<View, HTMLButtonElement>();
  private readonly resizes = new ResizeObserver(() => this.resize());
  private readonly unwatchTheme = watchTheme(() => this.resize());
  private scene: Scene | undefined;
  private rows: Rows | undefined;
  private services: string[] = [];
  /** For merged paths: errors, spans, and totals, and the latter two for the traces to compare with. */
  private counts: Float64Array[] = [];
  private readonly closed = new Set<number>();
  private view: View;
  private page = 0;
  private frame = 0;
  private timer = 0;
  private drag: { x: number; isMap: boolean } | undefined;

  constructor(model: Model) {
    this.kernel = new Kernel(model);
    this.isTrace = model.get("mode") === "trace";
    this.view = this.isTrace ? "waterfall" : "flame";
    this.stage = make("div", { class: "micromegas-trace-stage" }, this.painter.canvas, this.tip);
    const views: View[] = this.isTrace ? ["waterfall", "flame", "table"] : ["flame", "table"];
    for (const view of views)
      this.buttons.set(
        view,
        makeButton(TITLES[view], () => this.show(view)),
      );
    const bar = make("div", { class: "micromegas-trace-bar" }, make("strong", {}, String(model.get("summary"))));
    const showAll = makeButton("Show all", () => this.zoomTo(0, Infinity), { title: "Zoom out (0)" });
    bar.append(...this.buttons.values(), this.search, this.found, showAll);
    const body = make("div", { class: "micromegas-trace-body" }, this.stage, this.table, this.details);
    this.root = make("div", { class: "micromegas-trace" }, bar, body, this.message, this.live);
    this.pressView();
    suppressShortcuts(this.root);
    this.listen();
    this.resizes.observe(this.stage);
    void this.tell(() => this.load());
  }

  close(): void {
    this.kernel.close();
    this.resizes.disconnect();
    this.unwatchTheme();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
  }

  private async tell(work: () => Promise<void>): Promise<void> {
    try {
      this.message.textContent = "";
      await work();
    } catch (error) {
      this.message.textContent = `✗ ${(error as Error).message}`;
    }
  }

  private async load(): Promise<void> {
    const { answer, buffers } = await this.kernel.ask("spans");
    // Copies are aligned in memory.
    const at = (index: number): ArrayBuffer => {
      const { buffer, byteOffset, byteLength } = buffers[index] ?? new DataView(new ArrayBuffer(0));
      return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
    };
    const doubles = (index: number): Float64Array => new Float64Array(at(index));
    const [start, duration, self, depth] = [doubles(0), doubles(1), doubles(2), new Uint32Array(at(8))];
    const [parent, size, flags] = [new Int32Array(at(3)), new Int32Array(at(4)), new Uint8Array(at(7))];
    const [name, service] = [new Uint32Array(at(5)), new Uint32Array(at(6))];
    const spans: Spans = { count: start.length, start, duration, self, parent, size, name, service, flags };
    const path = { span: new Int32Array(at(9)), begin: doubles(10), end: doubles(11) };
    this.services = answer.services;
    this.counts = buffers.slice(12).map((_, index) => doubles(index + 12));
    const [, , now, , before] = this.counts;
    const changes = before && now?.map((each, span) => (each - before[span]!) / Math.max(each, before[span]!, 1));
    const { total } = answer;
    const matches = new Set<number>();
    this.scene = {
      ...{ spans, names: answer.names, depth, path, matches, total, changes },
      ...{ rows: undefined, visible: this.listVisible(spans), closed: this.closed },
      ...{ selected: 0, from: 0, to: total, scroll: 0 },
    };
    this.show(this.view);
    this.painter.paint(this.scene);
    performance.mark("micromegas-trace-painted");
    this.select(0);
  }

  private listVisible(spans: Spans): Int32Array {
    const visible = new Int32Array(spans.count);
    let count = 0;
    for (let span = 0; span < spans.count; span += this.closed.has(span) ? spans.size[span]! : 1)
      visible[count++] = span;
    return visible.subarray(0, count);
  }

  // Display

  private show(view: View): void {
    this.view = view;
    this.pressView();
    this.stage.hidden = view === "table";
    this.table.hidden = view !== "table";
    if (!this.scene) return;
    this.scene.scroll = 0;
    this.scene.rows = view === "flame" ? (this.rows ??= arrangeRows(this.scene.spans)) : undefined;
    if (view === "table") this.fillTable();
    else this.resize();
    this.reveal();
  }

  private pressView(): void {
    for (const [view, button] of this.buttons) button.setAttribute("aria-pressed", String(view === this.view));
  }

  private get lines(): number {
    return this.scene?.rows?.count ?? this.scene?.visible.length ?? 0;
  }

  private resize(): void {
    const width = this.stage.clientWidth;
    if (!width || !this.scene) return;
    this.painter.resize(width, Math.min(MAX_HEIGHT, TOP + Math.max(this.lines, MIN_LINES) * ROW + 2));
    this.request();
    requestAnimationFrame(() => setTimeout(() => this.scene && this.painter.prepareMap(this.scene) && this.request()));
  }

  private request(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.scene || this.view === "table") return;
      this.scene.scroll = Math.max(0, Math.min(this.scene.scroll, this.maxScroll));
      this.painter.paint(this.scene);
    });
  }

  private get maxScroll(): number {
    return this.lines * ROW - (this.painter.height - TOP);
  }

  private describe(span: number): string {
    const { spans, names } = this.scene!;
    const flags = spans.flags[span]!;
    const [errors, count, total, countBefore, totalBefore] = this.counts.map((each) => each[span]!);
    const name = `${names[spans.name[span]!]!} · ${this.services[spans.service[span]!]!}`;
    const self = `self ${exactTime(spans.self[span]!)}`;
    if (count === undefined || total === undefined) {
      const marks = this.marks(flags).map((each) => ` · ${each}`);
      return `${name} · ${exactTime(spans.duration[span]!)} (${self})${marks.join("")}`;
    }
    const facts = `${exactTime(total)} (${self}) · ${count} spans · ${errors} errors`;
    if (totalBefore === undefined) return `${name} · ${facts}`;
    return `${name} · ${facts} · per trace; before: ${exactTime(totalBefore)} · ${countBefore} spans`;
  }

  private marks(flags: number): string[] {
    const marks: [number, string][] = [
      [ERROR, "✗ error"],
      [CRITICAL, "critical path"],
      [ORPHAN, "parent missing"],
    ];
    return marks.filter(([flag]) => flags & flag).map(([, text]) => text);
  }

  /** The spans, or those that match a search, one page at a time. */
  private fillTable(): void {
    const { spans, names, depth, matches, selected } = this.scene!;
    const list = matches.size ? [...matches].sort((one, other) => one - other) : undefined;
    const total = list?.length ?? spans.count;
    const pages = Math.ceil(total / PAGE);
    const last = Math.min(total, (this.page + 1) * PAGE);
    const rows = [];
    for (let index = this.page * PAGE; index < last; index++) {
      const span = list?.[index] ?? index;
      const name = makeButton(names[spans.name[span]!]! || "(no name)", () => this.select(span), {
        style: `margin-left: ${Math.min(depth[span]!, 20)}em`,
        "aria-pressed": String(span === selected),
      });
      name.dataset.span = String(span);
      const times = [spans.start, this.counts[2] ?? spans.duration, spans.self];
      const cells = times.map((each) => make("td", { class: "number" }, exactTime(each[span]!)));
      const service = make("td", {}, this.services[spans.service[span]!]!);
      const marks = make("td", {}, this.marks(spans.flags[span]!).join(", "));
      rows.push(make("tr", {}, make("td", {}, name), service, ...cells.slice(this.isTrace ? 0 : 1), marks));
    }
    const titles = ["span", "service", ...(this.isTrace ? ["start", "duration"] : ["total"]), "self", "marks"];
    const caption = `Spans ${this.page * PAGE + 1}–${last} of ${total.toLocaleString("en")}`;
    const turn = (by: number) => () => {
      this.page = Math.max(0, Math.min(pages - 1, this.page + by));
      this.fillTable();
      this.table.focus();
    };
    this.table.replaceChildren(
      make(
        "table",
        {},
        make("caption", {}, caption),
        make("thead", {}, make("tr", {}, ...titles.map((each) => make("th", { scope: "col" }, each)))),
        make("tbody", {}, ...rows),
      ),
      makeButton("Previous page", turn(-1), { disabled: this.page === 0 }),
      makeButton("Next page", turn(1), { disabled: this.page >= pages - 1 }),
    );
  }

  // User actions

  private select(span: number): void {
    const scene = this.scene!;
    scene.selected = span;
    this.live.textContent = this.describe(span);
    for (const each of this.table.querySelectorAll<HTMLElement>("[data-span]")) {
      each.setAttribute("aria-pressed", String(each.dataset.span === String(span)));
    }
    this.reveal();
    clearTimeout(this.timer);
    if (!this.isTrace) this.details.replaceChildren(make("p", {}, this.describe(span)));
    // Skip the spans passed while a key is held down.
    else this.timer = setTimeout(() => void this.tell(() => this.fetchDetails(span)), DETAILS_DELAY);
  }

  private async fetchDetails(span: number): Promise<void> {
    const { answer } = await this.kernel.ask("details", { span });
    if (span !== this.scene?.selected) return;
    const open = (id: string): void =>
      void this.tell(async () => {
        this.live.textContent = await openTrace(this.root, id);
      });
    this.details.replaceChildren(...drawDetails(answer, open));
    this.details.scrollTop = 0;
  }

  /** Scroll and pan to the selected span. */
  private reveal(): void {
    const scene = this.scene!;
    const { spans, selected, from, to } = scene;
    const line = scene.rows ? scene.rows.row[selected]! : scene.visible.indexOf(selected);
    const room = this.painter.height - TOP;
    if (line * ROW < scene.scroll || (line + 1) * ROW > scene.scroll + room) scene.scroll = line * ROW - room / 2;
    const [start, end] = [spans.start[selected]!, spans.start[selected]! + spans.duration[selected]!];
    if (end < from || start > to) this.zoomTo(start - (to - from) / 2, start + (to - from) / 2);
    this.request();
  }

  private async find(text: string): Promise<void> {
    this.page = 0;
    this.found.textContent = text.trim() && "searching…";
    let spans: number[] = [];
    try {
      if (text.trim()) ({ spans } = (await this.kernel.ask("search", { text: text.trim() })).answer);
    } finally {
      if (this.search.value === text) this.found.textContent = "";
    }
    if (this.search.value !== text) return; // another search has started
    const matches = (this.scene!.matches = new Set(spans));
    const time = spans.reduce((sum, span) => sum + this.scene!.spans.self[span]!, 0);
    const result = `${matches.size.toLocaleString("en")} found · self ${shortTime(time)}`;
    this.found.textContent = text.trim() && result;
    if (this.view === "table") this.fillTable();
    this.request();
  }

  private listen(): void {
    const { canvas } = this.painter;
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.scene) void this.tell(() => this.find(this.search.value));
      if (event.key === "Escape") canvas.focus();
    });
    canvas.addEventListener("keydown", (event) => {
      if (!this.scene || event.ctrlKey || event.metaKey || event.altKey || !this.press(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
    });
    canvas.addEventListener("wheel", this.wheel, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.scene) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.offsetX, isMap: event.offsetY < MAP };
    });
    canvas.addEventListener("pointermove", this.move);
    canvas.addEventListener("pointerup", this.release);
    canvas.addEventListener("pointercancel", () => (this.drag = undefined));
    canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    canvas.addEventListener("dblclick", () => this.scene && this.press("Enter"));
  }

  private readonly wheel = (event: WheelEvent): void => {
    const { scene } = this;
    if (!scene) return;
    const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(event.deltaY * 0.0025), this.timeAt(event.offsetX));
    else if (isSideways) this.pan((event.deltaX || event.deltaY) / this.painter.width);
    else if (event.deltaY < 0 ? scene.scroll > 0 : scene.scroll < this.maxScroll) scene.scroll += event.deltaY;
    else return; // the page scrolls
    event.preventDefault();
    this.request();
  };

  private readonly move = (event: PointerEvent): void => {
    const { scene, drag } = this;
    if (!scene) return;
    const span = drag ? undefined : this.painter.find(scene, event.offsetX, event.offsetY);
    this.tip.hidden = span === undefined;
    if (span === undefined) return;
    this.tip.textContent = this.describe(span);
    this.tip.style.left = `${Math.max(0, Math.min(event.offsetX + 12, this.painter.width - 240))}px`;
    this.tip.style.top = `${event.offsetY + 14}px`;
  };

  private readonly release = (event: PointerEvent): void => {
    const { scene, drag } = this;
    this.drag = undefined;
    if (!scene || !drag) return;
    const { offsetX, offsetY } = event;
    if (Math.abs(offsetX - drag.x) > MIN_DRAG) {
      const times = [drag.x, offsetX].map((x) =>
        drag.isMap ? (x / this.painter.width) * scene.total : this.timeAt(x),
      );
      this.zoomTo(Math.min(...times), Math.max(...times));
      return;
    }
    const span = this.painter.find(scene, offsetX, offsetY);
    if (span === undefined) return;
    const isSign = !scene.rows && Math.abs(offsetX - this.painter.indent(scene, span) - 5) < 9;
    if (isSign) this.fold(span, !this.closed.has(span));
    this.select(span);
  };

  private press(key: string): boolean {
    const { spans, selected, matches, rows } = this.scene!;
    const [start, end] = [spans.start[selected]!, spans.start[selected]! + spans.duration[selected]!];
    const middle = Math.max(this.scene!.from, Math.min(this.scene!.to, (start + end) / 2));
    const keys: Record<string, () => void> = {
      w: () => this.zoom(0.7, middle),
      s: () => this.zoom(1 / 0.7, middle),
      a: () => this.pan(-0.2),
      d: () => this.pan(0.2),
      "0": () => this.zoomTo(0, Infinity),
      Enter: () => this.zoomTo(start, end),
      e: () => this.select(this.next((span) => (spans.flags[span]! & ERROR) !== 0)),
      p: () => this.select(this.next((span) => (spans.flags[span]! & CRITICAL) !== 0)),
      n: () => this.select(this.next((span) => matches.has(span))),
      "/": () => this.search.focus(),
      Home: () => this.select(0),
      ArrowUp: () => this.select(rows ? Math.max(spans.parent[selected]!, 0) : this.neighbor(-1)),
      ArrowDown: () => this.select(rows ? selected + (spans.size[selected]! > 1 ? 1 : 0) : this.neighbor(1)),
      ArrowRight: () => (rows ? this.select(this.sibling(1)) : this.fold(selected, false)),
      ArrowLeft: () => (rows ? this.select(this.sibling(-1)) : this.foldOrClimb(selected)),
    };
    const action = keys[key];
    action?.();
    return action !== undefined;
  }

  private neighbor(step: number): number {
    const { visible, selected } = this.scene!;
    return visible[Math.max(0, Math.min(visible.length - 1, visible.indexOf(selected) + step))]!;
  }

  private sibling(step: number): number {
    const { spans, selected } = this.scene!;
    const above = spans.parent[selected]!;
    if (step > 0) {
      const next = selected + spans.size[selected]!;
      return next < (above < 0 ? spans.count : above + spans.size[above]!) ? next : selected;
    }
    let before = selected;
    for (let each = above + 1; each < selected; each += spans.size[each]!) before = each;
    return before;
  }

  private next(test: (span: number) => boolean): number {
    const { spans, selected } = this.scene!;
    for (let step = 1; step < spans.count; step++) {
      const span = (selected + step) % spans.count;
      if (!test(span)) continue;
      for (let above = spans.parent[span]!; above >= 0; above = spans.parent[above]!) this.fold(above, false);
      return span;
    }
    return selected;
  }

  private foldOrClimb(span: number): void {
    const { spans } = this.scene!;
    if (this.closed.has(span) || spans.size[span] === 1) this.select(Math.max(spans.parent[span]!, 0));
    else this.fold(span, true);
  }

  private fold(span: number, isClosed: boolean): void {
    if (this.closed.has(span) === isClosed || (isClosed && this.scene!.spans.size[span] === 1)) return;
    if (isClosed) this.closed.add(span);
    else this.closed.delete(span);
    this.scene!.visible = this.listVisible(this.scene!.spans);
    this.request();
  }

  private timeAt(x: number): number {
    const { from, to } = this.scene!;
    const left = this.painter.left(this.scene!);
    return from + ((x - left) / (this.painter.width - left)) * (to - from);
  }

  private zoom(factor: number, at: number): void {
    const { from, to } = this.scene!;
    this.zoomTo(at - (at - from) * factor, at + (to - at) * factor);
  }

  private pan(share: number): void {
    const { from, to } = this.scene!;
    const by = Math.max(-from, Math.min(this.scene!.total - to, (to - from) * share));
    this.zoomTo(from + by, to + by);
  }

  private zoomTo(from: number, to: number): void {
    const { scene } = this;
    if (!scene) return;
    const shown = Math.min(Math.max(to - from, MIN_NANOSECONDS), scene.total);
    scene.from = Math.max(0, Math.min(from, scene.total - shown));
    scene.to = scene.from + shown;
    this.request();
  }
}

/** A page may contain several views, so their parts are groups: a landmark needs a unique label. */
function group(name: string, label: string): HTMLElement {
  return make("div", { class: name, role: "group", "aria-label": label, tabindex: 0 });
}
