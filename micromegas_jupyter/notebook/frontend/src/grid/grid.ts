// A result's rows as a table of any length: only the visible rows are in the page. The kernel side,
// results/grid.py, sorts, filters, counts, and writes; this side displays text. Keys follow the WAI-ARIA
// Authoring Practices' grid.

import { TRACE_ID, insertCell, openTrace, suppressShortcuts } from "../base/cells";
import { Kernel } from "../base/kernel";
import { copyText, make, makeButton } from "../dom";
import type { Model, RenderContext } from "../widget";
import { Blocks } from "./blocks";
import { ChartPanel } from "./chart";
import { Exports } from "./export";
import { Header, MAX_WIDTH, MIN_WIDTH } from "./header";
import type { ChartOptions, Column, GridKernel, RowQuery, Texts } from "./kernel";
import { openMenu } from "./menu";

const ROW_HEIGHT = 24;
const VISIBLE_ROWS = 15;
const MAX_COMPACT_ROWS = 3;
// Browsers limit the height of elements: Firefox to 17.8 million pixels.
const MAX_HEIGHT = 8_000_000;
const NUMBER_WIDTH = 24;
const CHARACTER_WIDTH = 8.2;
const MIN_FITTING_WIDTH = 112;
const MAX_FITTING_WIDTH = 340;
const BAR_GAP = 8;
const MIN_MESSAGE_WIDTH = 120;

export default {
  render({ model, el }: RenderContext): () => void {
    const grid = new Grid(model);
    el.append(grid.root);
    return () => grid.close();
  },
};

interface Position {
  row: number;
  /** Among the visible columns. */
  place: number;
}

class Grid {
  readonly root: HTMLElement;
  private readonly kernel: GridKernel;
  private readonly columns: Column[];
  private readonly rowCount: number;
  private readonly blocks: Blocks;
  private readonly headers: Header[];
  private readonly fittingWidths: number[];
  private readonly widths: number[];
  private readonly hidden = new Set<number>();
  private order: RowQuery = { filters: {}, sort: [] };
  private firstRow = 0;
  private focus: Position = { row: 0, place: 0 };
  private anchor: Position = { row: 0, place: 0 };
  private isSelecting = false;
  private readonly numberWidth: number;
  private readonly status = make("span", { class: "micromegas-grid-status", role: "status" });
  private readonly message = make("span", { class: "micromegas-grid-message", role: "alert" });
  private readonly showHidden = makeButton("", () => this.unhide(), { hidden: true });
  private readonly scroller = make("div", { class: "micromegas-grid-scroller" });
  private readonly sizer = make("div", { class: "micromegas-grid-sizer" });
  private readonly widthElements = make("colgroup");
  private readonly headRow = make("tr", { "aria-rowindex": 1 });
  private readonly body = make("tbody");
  private readonly table: HTMLTableElement;
  private readonly detail = make("div", {
    class: "micromegas-grid-detail",
    role: "group",
    "aria-label": "Whole value",
    hidden: true,
  });
  private readonly chart: ChartPanel;
  private readonly chartButton = makeButton("Chart", () => this.toggleChart(), { "aria-expanded": "false" });
  private readonly clear = makeButton("Clear filters", () => void this.select({}, true), { hidden: true });
  private readonly hasSource: boolean;
  private readonly bar: HTMLElement;
  /** A few values need no histograms and no filters. */
  private readonly isCompact: boolean;
  private tableWidth = 0;
  /** The number of requests for distributions: only the last one counts. */
  private spreads = 0;
  private readonly observer = new ResizeObserver(() => this.draw());

  constructor(model: Model) {
    this.kernel = new Kernel(model);
    this.columns = model.get("columns") as Column[];
    this.rowCount = model.get("total") as number;
    const first = model.get("first") as Texts;
    this.blocks = new Blocks(
      this.kernel,
      this.rowCount,
      first,
      () => this.draw(),
      (error) => this.say(error.message),
    );
    this.hasSource = model.get("has_source") as boolean;
    const plot = model.get("plot") as ChartOptions | null;
    this.isCompact = this.rowCount <= MAX_COMPACT_ROWS && !plot;
    this.bar = this.buildBar();
    this.chart = new ChartPanel(this.kernel, this.columns, plot ?? {}, {
      select: (filters) => this.select(filters),
      order: () => this.order,
      asCell: this.hasSource ? (chart) => void this.asCell(chart) : undefined,
      say: (sentence) => this.say(sentence),
    });
    this.fittingWidths = this.columns.map((column, index) => fittingWidth(column, first[index] ?? []));
    this.widths = [...this.fittingWidths];
    this.numberWidth =
      NUMBER_WIDTH + Math.max(this.rowCount.toLocaleString("en").length, "row".length) * CHARACTER_WIDTH;
    this.headers = this.columns.map(
      (column, index) =>
        new Header(column, index, this.rowCount, {
          sort: this.sort,
          filter: this.filter,
          resize: this.resize,
          hide: this.hide,
          pickBars: (column, bars) => void this.pick({ what: "bar", column, bars }),
          pickTop: (column, place) => void this.pick({ what: "top", column, place }),
        }),
    );
    this.table = make(
      "table",
      {
        role: "grid",
        "aria-label": "Rows of the result",
        "aria-colcount": this.columns.length + 1,
        "aria-multiselectable": "true",
      },
      this.widthElements,
      make("thead", {}, this.headRow),
      this.body,
    );
    this.sizer.append(this.table);
    this.scroller.append(this.sizer);
    this.root = make(
      "div",
      // A page may contain several results, so their parts are groups: a landmark needs a unique label.
      { class: "micromegas-grid", role: "group", "aria-label": "Result" },
      this.bar,
      this.chart.root,
      this.scroller,
      this.detail,
    );
    const note = model.get("note") as string;
    if (note) this.root.append(make("p", { class: "micromegas-grid-note" }, note));
    suppressShortcuts(this.root);
    this.scroller.addEventListener("scroll", this.scrolled, { passive: true });
    this.table.addEventListener("keydown", this.keyPressed);
    this.body.addEventListener("pointerdown", this.pointerPressed);
    this.body.addEventListener("pointerover", this.pointerMoved);
    this.body.addEventListener("pointerup", () => (this.isSelecting = false));
    this.body.addEventListener("dblclick", () => void this.expand());
    this.body.addEventListener("contextmenu", this.showMenu);
    this.headRow.addEventListener("focusin", this.headFocused);
    // The header's height is known once it is in the page, and changes when the statistics arrive.
    this.observer.observe(this.headRow);
    this.observer.observe(this.scroller);
    this.layOut();
    this.root.classList.toggle("micromegas-grid-compact", this.isCompact);
    if (!this.isCompact) void this.loadSpreads();
    if (plot) this.toggleChart();
  }

  close(): void {
    this.chart.close();
    this.observer.disconnect();
    this.headers.forEach((header) => header.close());
    this.kernel.close();
  }

  private buildBar(): HTMLElement {
    const exports = new Exports(
      this.kernel,
      () => ({ order: this.blocks.order, hidden: [...this.hidden] }),
      (sentence) => this.say(sentence),
    );
    return make(
      "div",
      { class: "micromegas-grid-bar" },
      make("div", { class: "micromegas-grid-said" }, this.status, this.message, this.clear, this.showHidden),
      this.chartButton,
      ...(this.hasSource
        ? [
            makeButton("Copy as SQL", () => void this.asCell(null), {
              title: "Write the statement with the filters and the order into a new cell",
            }),
          ]
        : []),
      makeButton("Copy", () => void this.copy(), { title: "Copy the selected cells (Ctrl+C)" }),
      exports.root,
    );
  }

  private toggleChart(): void {
    this.chartButton.setAttribute("aria-expanded", String(this.chart.toggle()));
    this.placeBar();
  }

  /** Show the buttons next to a small table that leaves room for them, where they need no line above it. */
  private placeBar(): void {
    const [said, ...buttons] = [...this.bar.children] as HTMLElement[];
    const needed = buttons.reduce((sum, button) => sum + button.offsetWidth + BAR_GAP, MIN_MESSAGE_WIDTH);
    const room = this.root.clientWidth - this.tableWidth;
    const isBeside = this.isCompact && said !== undefined && this.chart.root.hidden && room >= needed;
    this.root.classList.toggle("micromegas-grid-beside", isBeside);
    this.bar.style.left = isBeside ? `${this.tableWidth + 2 * BAR_GAP}px` : "";
  }

  /** The rows come first, then the columns' distributions one by one, and after a filter all together. */
  private async loadSpreads(): Promise<void> {
    const number = ++this.spreads;
    const { order } = this.blocks;
    const all = this.columns.map((_, column) => column);
    const parts = Object.keys(order.filters).length ? [all] : all.map((column) => [column]);
    for (const columns of parts) {
      try {
        const { answer } = await this.kernel.ask("spreads", { columns, order });
        if (number !== this.spreads) return;
        for (const column of columns) {
          const spread = answer[column];
          if (spread) this.headers[column]?.showSpread(spread);
        }
      } catch {
        return; // the header shows less; the next request reports the reason
      }
    }
  }

  /** Apply filters as if they were typed; an empty one clears. */
  private async select(filters: Record<number, string>, replaces = false): Promise<void> {
    const all: Record<number, string> = { ...(replaces ? {} : this.order.filters), ...filters };
    const kept = Object.fromEntries(Object.entries(all).filter(([, typed]) => typed !== ""));
    if (isSame(kept, this.order.filters)) return;
    await this.arrange({ ...this.order, filters: kept });
  }

  private async pick(details: { what: string; column: number; [detail: string]: unknown }): Promise<void> {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("pick", { ...details, order: this.blocks.order });
      await this.select(answer.filters, details.what === "around");
      return this.message.textContent;
    });
  }

  /** Write the selection, or the chart, to a new cell, or copy it if there are no cells. */
  private async asCell(chart: ChartOptions | null): Promise<void> {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("cell", { order: this.blocks.order, chart, hidden: [...this.hidden] });
      const isInserted = await insertCell(this.root, answer.source);
      return isInserted ? "Written into a new cell." : "Copied. Paste it into a new cell.";
    });
  }

  private readonly showMenu = (event: MouseEvent): void => {
    const found = this.findPosition(event.target);
    const column = found && this.shown()[found.place];
    if (!found || column === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (!this.isSelected(found.row, found.place)) this.moveTo(found, false);
    const { row } = found;
    const { name, kind } = this.columns[column] ?? { name: "", kind: "other" };
    const text = this.blocks.text(row, column) ?? "null";
    const value = `${name} = ${text.length > 28 ? `${text.slice(0, 27)}…` : text}`;
    const isTime = (each: Column): boolean => each.kind === "time" && /^(timestamp|date)/.test(each.arrow_type);
    const time = kind === "time" ? column : this.columns.findIndex(isTime);
    const items: [string, () => void][] = [
      [`Only ${value}`, () => void this.pick({ what: "only", column, row })],
      [`Exclude ${value}`, () => void this.pick({ what: "exclude", column, row })],
    ];
    if (time >= 0)
      items.push([
        `±1 minute around this ${this.columns[time]?.name ?? ""}`,
        () => void this.pick({ what: "around", column: time, row }),
      ]);
    const traceId = this.traceIdOf(row);
    if (traceId) items.push(["Open its trace", () => void this.tell(() => openTrace(this.root, traceId))]);
    items.push(["Copy", () => void this.copy()], ["Show whole value", () => void this.expand()]);
    openMenu(this.root, event, items, () => this.focusedCell()?.focus({ preventScroll: true }));
  };

  private traceIdOf(row: number): string | undefined {
    const column = this.columns.findIndex(({ name }) => /(^|[._])trace_?id$/i.test(name));
    const text = column < 0 ? "" : (this.blocks.text(row, column) ?? "").replace(/^0x/, "").replaceAll("-", "");
    return TRACE_ID.test(text) ? text.toLowerCase() : undefined;
  }

  private shown(): number[] {
    return this.columns.map((_, column) => column).filter((column) => !this.hidden.has(column));
  }

  private layOut(): void {
    const shown = this.shown();
    const numbers = make("col");
    numbers.style.width = `${this.numberWidth}px`;
    const widths = shown.map((column) => {
      const width = this.widths[column] ?? MIN_WIDTH;
      this.headers[column]?.setWidth(width);
      const element = make("col");
      element.style.width = `${width}px`;
      return element;
    });
    this.widthElements.replaceChildren(numbers, ...widths);
    const total = shown.reduce((sum, column) => sum + (this.widths[column] ?? 0), this.numberWidth);
    this.tableWidth = total;
    this.table.style.width = this.sizer.style.width = `${total}px`;
    const corner = make("th", { scope: "col", "aria-colindex": 1 }, "row");
    const cells = shown.flatMap((column) => this.headers[column]?.cell ?? []);
    // Reinserting a cell at its position would lose the focus.
    const known = [...this.headRow.cells].slice(1);
    if (known.length !== cells.length || known.some((cell, place) => cell !== cells[place]))
      this.headRow.replaceChildren(corner, ...cells);
    this.showHidden.hidden = this.hidden.size === 0;
    this.showHidden.textContent = `Show ${this.hidden.size} hidden`;
    this.focus.place = clamp(this.focus.place, shown.length);
    this.draw();
  }

  private visibleRows(): number {
    return Math.min(VISIBLE_ROWS, this.blocks.total);
  }

  private draw(): void {
    this.placeBar();
    const { total } = this.blocks;
    const visible = this.visibleRows();
    const shown = this.shown();
    const inSight = this.placesInSight(shown);
    this.firstRow = clamp(this.firstRow, total - visible + 1);
    this.table.setAttribute("aria-rowcount", String(total + 1));
    const headHeight = this.table.tHead?.offsetHeight ?? 0;
    const bar = this.scroller.offsetHeight - this.scroller.clientHeight;
    // Keeps its height with few matching rows, so that nothing below moves.
    const rows = Math.min(VISIBLE_ROWS, this.rowCount);
    setStyle(this.scroller, "height", headHeight + rows * ROW_HEIGHT + Math.max(bar, 2));
    setStyle(this.sizer, "height", headHeight + Math.min(total * ROW_HEIGHT, MAX_HEIGHT));
    const hadFocus = this.body.contains(activeElement(this.root));
    while (this.body.rows.length > visible) this.body.deleteRow(-1);
    while (this.body.rows.length < visible) this.body.append(make("tr", {}, make("th", { scope: "row" })));
    for (let line = 0; line < visible; line++) this.drawRow(this.firstRow + line, line, shown, inSight);
    if (hadFocus) this.focusedCell()?.focus({ preventScroll: true });
    this.headers.forEach((header, column) => header.setReachable(shown[this.focus.place] === column));
    this.drawStatus(visible, shown.length);
    this.blocks.need(this.firstRow, this.firstRow + visible);
  }

  /** Return the first and the last visible position; only these cells of a wide result are filled. */
  private placesInSight(shown: number[]): [number, number] {
    const { scrollLeft, clientWidth } = this.scroller;
    let right = this.numberWidth;
    const ends = shown.map((column) => (right += this.widths[column] ?? 0));
    const first = ends.findIndex((end) => end > scrollLeft);
    const last = ends.findIndex((end) => end >= scrollLeft + clientWidth);
    return [Math.max(first, 0), last < 0 ? shown.length - 1 : last];
  }

  private drawRow(row: number, line: number, shown: number[], [firstPlace, lastPlace]: [number, number]): void {
    const element = this.body.rows[line];
    if (!element) return;
    setAttribute(element, "aria-rowindex", row + 2);
    element.classList.toggle("micromegas-grid-odd", row % 2 === 1);
    while (element.cells.length > shown.length + 1) element.deleteCell(-1);
    while (element.cells.length < shown.length + 1) element.append(make("td"));
    const [number, ...cells] = [...element.cells];
    if (number) number.textContent = (row + 1).toLocaleString("en");
    shown.forEach((column, place) => {
      const cell = cells[place];
      if (!cell) return;
      const isInFocus = row === this.focus.row && place === this.focus.place;
      const isInSight = (place >= firstPlace && place <= lastPlace) || isInFocus;
      const text = isInSight ? this.blocks.text(row, column) : "";
      const isNumber = this.columns[column]?.kind === "number";
      const shownText = text === undefined ? "…" : (text ?? "null");
      if (cell.textContent !== shownText) cell.textContent = shownText;
      setAttribute(cell, "class", text === null ? "micromegas-grid-null" : isNumber ? "micromegas-grid-right" : "");
      setAttribute(cell, "aria-colindex", column + 2);
      setAttribute(cell, "aria-selected", String(this.isSelected(row, place)));
      setAttribute(cell, "tabindex", isInFocus ? 0 : -1);
    });
  }

  private drawStatus(visible: number, columns: number): void {
    const { total } = this.blocks;
    const number = (value: number): string => value.toLocaleString("en");
    const range =
      total === 0
        ? "no rows"
        : `rows ${number(this.firstRow + 1)}–${number(this.firstRow + visible)} of ${number(total)}`;
    const matching = total === this.rowCount ? "" : ` that match, ${number(this.rowCount)} in all`;
    const hidden = columns === this.columns.length ? "" : `${columns} of `;
    const noun = this.columns.length === 1 ? "column" : "columns";
    const sentence = `${range}${matching} · ${hidden}${this.columns.length} ${noun}`;
    if (this.status.textContent !== sentence) this.status.textContent = sentence;
  }

  private readonly scrolled = (): void => {
    const range = this.scroller.scrollHeight - this.scroller.clientHeight;
    const last = this.blocks.total - this.visibleRows();
    this.firstRow = range > 0 ? Math.round((this.scroller.scrollTop / range) * last) : 0;
    this.draw();
  };

  private scrollTo(row: number): void {
    const range = this.scroller.scrollHeight - this.scroller.clientHeight;
    const last = this.blocks.total - this.visibleRows();
    this.firstRow = row;
    this.scroller.scrollTop = last > 0 ? (row / last) * range : 0;
    this.draw();
  }

  private readonly sort = (column: number, adds: boolean): void => {
    const known = this.order.sort.find(([sorted]) => sorted === column);
    const others = adds ? this.order.sort.filter(([sorted]) => sorted !== column) : [];
    // Ascending, descending, unsorted.
    const next: [number, boolean][] = known === undefined ? [[column, false]] : known[1] ? [] : [[column, true]];
    void this.arrange({ ...this.order, sort: [...others, ...next] });
  };

  private readonly filter = (column: number, typed: string): void => {
    const filters = Object.fromEntries(
      Object.entries(this.order.filters).filter(([known]) => Number(known) !== column),
    );
    void this.arrange({ ...this.order, filters: typed ? { ...filters, [column]: typed } : filters }, column);
  };

  private async arrange(order: RowQuery, filtered?: number): Promise<void> {
    const header = filtered === undefined ? undefined : this.headers[filtered];
    const { filters } = this.blocks.order;
    try {
      this.order = order;
      if (!(await this.blocks.arrange(order))) return;
      this.say("");
      header?.showFilterError("");
    } catch (error) {
      if (this.order !== order) return; // another order has been requested since
      const sentence = (error as Error).message;
      this.order = this.blocks.order;
      this.say(sentence);
      header?.showFilterError(sentence);
      return;
    }
    this.headers.forEach((each, column) => {
      const place = order.sort.findIndex(([sorted]) => sorted === column);
      each.showOrder(place, order.sort[place]?.[1] ?? false, order.sort.length);
    });
    this.headers.forEach((each, column) => each.showFilter(order.filters[column] ?? ""));
    this.clear.hidden = Object.keys(order.filters).length === 0;
    this.focus.row = this.anchor.row = 0;
    this.scrollTo(0);
    if (isSame(filters, order.filters)) return;
    this.chart.filtersChanged(order.filters);
    await this.loadSpreads();
  }

  /** Set a column's width in pixels; 0 means automatic. */
  private readonly resize = (column: number, width: number): void => {
    const fitting = this.fittingWidths[column] ?? MIN_FITTING_WIDTH;
    this.widths[column] = width === 0 ? fitting : Math.min(Math.max(width, MIN_WIDTH), MAX_WIDTH);
    this.layOut();
  };

  private readonly hide = (column: number): void => {
    if (this.hidden.size + 1 >= this.columns.length) {
      this.say("One column stays.");
      return;
    }
    this.hidden.add(column);
    this.layOut();
    this.headerInFocus()?.nameButton.focus();
  };

  private unhide(): void {
    this.hidden.clear();
    this.layOut();
    this.headerInFocus()?.nameButton.focus();
  }

  private bounds(): { rows: [number, number]; places: [number, number] } {
    const ordered = (one: number, other: number): [number, number] => [Math.min(one, other), Math.max(one, other)];
    return {
      rows: ordered(this.anchor.row, this.focus.row),
      places: ordered(this.anchor.place, this.focus.place),
    };
  }

  private isSelected(row: number, place: number): boolean {
    const { rows, places } = this.bounds();
    const isOne = rows[0] === rows[1] && places[0] === places[1];
    return !isOne && row >= rows[0] && row <= rows[1] && place >= places[0] && place <= places[1];
  }

  private focusedCell(): HTMLTableCellElement | undefined {
    return this.body.rows[this.focus.row - this.firstRow]?.cells[this.focus.place + 1];
  }

  private headerInFocus(): Header | undefined {
    return this.headers[this.shown()[this.focus.place] ?? -1];
  }

  private readonly headFocused = (event: FocusEvent): void => {
    const place = this.shown().findIndex((column) => this.headers[column]?.cell.contains(event.target as Node));
    if (place < 0 || place === this.focus.place) return;
    this.focus.place = this.anchor.place = place;
    this.draw();
  };

  private readonly pointerPressed = (event: PointerEvent): void => {
    const found = this.findPosition(event.target);
    if (!found || event.button !== 0) return;
    event.preventDefault(); // prevents selecting the page's text
    if (found.place < 0) this.selectRows(found.row, event.shiftKey);
    else this.moveTo(found, event.shiftKey);
    this.isSelecting = true;
  };

  private readonly pointerMoved = (event: PointerEvent): void => {
    if (!this.isSelecting || event.buttons !== 1) return;
    const found = this.findPosition(event.target);
    if (!found) return;
    if (found.place < 0) this.selectRows(found.row, true);
    else this.moveTo(found, true);
  };

  private findPosition(target: EventTarget | null): Position | undefined {
    const cell = target instanceof Element ? target.closest("td, th") : null;
    if (!(cell instanceof HTMLTableCellElement) || !(cell.parentElement instanceof HTMLTableRowElement))
      return undefined;
    return { row: this.firstRow + cell.parentElement.sectionRowIndex, place: cell.cellIndex - 1 };
  }

  private selectRows(row: number, extends_: boolean): void {
    if (!extends_) this.anchor.row = row;
    this.anchor.place = 0;
    this.focus = { row, place: this.shown().length - 1 };
    this.draw();
    this.focusedCell()?.focus({ preventScroll: true });
  }

  private moveTo({ row, place }: Position, extends_: boolean): void {
    const visible = this.visibleRows();
    this.focus = { row: clamp(row, this.blocks.total), place: clamp(place, this.shown().length) };
    if (!extends_) this.anchor = { ...this.focus };
    if (this.focus.row < this.firstRow) this.scrollTo(this.focus.row);
    else if (this.focus.row >= this.firstRow + visible) this.scrollTo(this.focus.row - visible + 1);
    else this.draw();
    const cell = this.focusedCell();
    cell?.focus({ preventScroll: true });
    this.showPlace(cell);
  }

  /** Scroll sideways until a cell is next to the row numbers, which cover the left edge. */
  private showPlace(cell: HTMLElement | undefined): void {
    if (!cell) return;
    const left = cell.offsetLeft - this.numberWidth;
    const right = cell.offsetLeft + cell.offsetWidth - this.scroller.clientWidth;
    if (this.scroller.scrollLeft > left) this.scroller.scrollLeft = left;
    else if (this.scroller.scrollLeft < right) this.scroller.scrollLeft = right;
  }

  private readonly keyPressed = (event: KeyboardEvent): void => {
    if (event.target instanceof HTMLInputElement) {
      if (event.key !== "Escape" && event.key !== "Enter" && event.key !== "ArrowDown") return;
      if (event.key === "ArrowDown") this.moveTo({ row: this.firstRow, place: this.focus.place }, false);
      else this.headerInFocus()?.nameButton.focus();
    } else if (this.headRow.contains(event.target as Node)) {
      if (!this.keyInHead(event)) return;
    } else if (!this.keyInBody(event)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  private keyInHead(event: KeyboardEvent): boolean {
    const header = this.headerInFocus();
    const column = this.shown()[this.focus.place];
    if (!header || column === undefined) return false;
    const steps: Record<string, -1 | 1> = { ArrowLeft: -1, ArrowRight: 1 };
    const step = steps[event.key];
    if (step !== undefined && event.altKey) header.step(step);
    else if (step !== undefined) this.moveInHead(this.focus.place + step);
    else if (event.key === "Home") this.moveInHead(0);
    else if (event.key === "End") this.moveInHead(this.shown().length - 1);
    else if (event.key === "ArrowDown") this.moveTo({ row: this.firstRow, place: this.focus.place }, false);
    else if (event.key === "Delete") this.hide(column);
    else if (event.key === "/") header.filter.focus();
    else if (event.key === "Enter" && event.shiftKey) this.sort(column, true);
    else return false;
    return true;
  }

  private moveInHead(place: number): void {
    this.focus.place = this.anchor.place = clamp(place, this.shown().length);
    this.draw();
    const header = this.headerInFocus();
    header?.nameButton.focus({ preventScroll: true });
    this.showPlace(header?.cell);
  }

  private keyInBody(event: KeyboardEvent): boolean {
    const { row, place } = this.focus;
    const isWhole = event.ctrlKey || event.metaKey;
    const lastRow = this.blocks.total - 1;
    const lastPlace = this.shown().length - 1;
    const moves: Record<string, Position> = {
      ArrowUp: { row: isWhole ? 0 : row - 1, place },
      ArrowDown: { row: isWhole ? lastRow : row + 1, place },
      ArrowLeft: { row, place: isWhole ? 0 : place - 1 },
      ArrowRight: { row, place: isWhole ? lastPlace : place + 1 },
      PageUp: { row: row - VISIBLE_ROWS, place },
      PageDown: { row: row + VISIBLE_ROWS, place },
      Home: { row: isWhole ? 0 : row, place: 0 },
      End: { row: isWhole ? lastRow : row, place: lastPlace },
    };
    const move = moves[event.key];
    if (event.key === "ArrowUp" && row === 0 && !event.shiftKey) this.moveInHead(place);
    else if (move) this.moveTo(move, event.shiftKey);
    else if (event.key === "Enter") void this.expand();
    else if (event.key === "Escape" && !this.detail.hidden) this.collapse();
    else if (event.key === "Escape") this.moveTo(this.focus, false);
    else if (event.key === " " && event.shiftKey) this.selectRows(row, this.anchor.row !== row);
    else if (event.key === "c" && isWhole) void this.copy();
    else if (event.key === "a" && isWhole) this.selectAll();
    else if (event.key === "/") this.headerInFocus()?.filter.focus();
    else return false;
    return true;
  }

  private selectAll(): void {
    this.anchor = { row: 0, place: 0 };
    this.focus = { row: Math.max(this.blocks.total - 1, 0), place: this.shown().length - 1 };
    this.draw();
  }

  private async copy(): Promise<void> {
    const { rows, places } = this.bounds();
    const columns = this.shown().slice(places[0], places[1] + 1);
    const isOne = rows[0] === rows[1] && columns.length === 1;
    const count = isOne
      ? "Cell"
      : rows[0] === rows[1]
        ? "1 row"
        : `${(rows[1] - rows[0] + 1).toLocaleString("en")} rows`;
    await this.tell(async () => {
      const { order } = this.blocks;
      const asked = isOne
        ? this.kernel.ask("value", { order, row: rows[0], column: columns[0] })
        : this.kernel.ask("copy", { order, rows, columns, header: columns.length > 1 });
      await copyText((await asked).answer.text);
      return `${count} copied.`;
    });
  }

  private async expand(): Promise<void> {
    const { row, place } = this.focus;
    const column = this.shown()[place];
    if (column === undefined || this.blocks.total === 0) return;
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("value", { order: this.blocks.order, row, column });
      const title = `${this.columns[column]?.name ?? ""} · row ${(row + 1).toLocaleString("en")}`;
      this.detail.replaceChildren(
        make(
          "div",
          { class: "micromegas-grid-bar" },
          make("strong", {}, title),
          make("span", { class: "micromegas-grid-space" }),
          makeButton(
            "Copy value",
            () =>
              void this.tell(async () => {
                await copyText(answer.text);
                return "Value copied.";
              }),
          ),
          makeButton("Close", () => this.collapse()),
        ),
        make("pre", { tabindex: 0, "aria-label": title }, answer.text),
      );
      this.detail.hidden = false;
      return answer.is_cut ? "Only the beginning of this value is shown." : "";
    });
  }

  private collapse(): void {
    this.detail.hidden = true;
    this.focusedCell()?.focus({ preventScroll: true });
  }

  /** Run an action and report the outcome. */
  private async tell(action: () => Promise<string>): Promise<void> {
    try {
      this.say(await action());
    } catch (error) {
      this.say((error as Error).message);
    }
  }

  private say(sentence: string): void {
    this.message.textContent = this.message.title = sentence;
  }
}

function fittingWidth(column: Column, texts: (string | null)[]): number {
  const type = column.type.length + (column.unit ? column.unit.length + 3 : 0);
  const longest = Math.max(column.name.length + 4, type * 0.9, ...texts.map((text) => text?.length ?? 4));
  return Math.min(Math.max(longest * CHARACTER_WIDTH + 20, MIN_FITTING_WIDTH), MAX_FITTING_WIDTH);
}

function isSame(one: Record<number, string>, other: Record<number, string>): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function setStyle(element: HTMLElement, name: "height", pixels: number): void {
  if (element.style[name] !== `${pixels}px`) element.style[name] = `${pixels}px`;
}

/** Set an attribute only if it changes: setting costs far more than reading. */
function setAttribute(element: Element, name: string, value: string | number): void {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

function activeElement(element: Element): Element | null {
  const root = element.getRootNode();
  return root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
}

function clamp(value: number, length: number): number {
  return Math.max(Math.min(value, length - 1), 0);
}
