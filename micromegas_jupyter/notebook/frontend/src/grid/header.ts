// A column's head: its name, which sorts; its type; what its values are like; a filter; a grip for its width.

import { make, makeButton } from "../dom";
import type { Column, Statistics } from "./kernel";

export const MIN_WIDTH = 48;
export const MAX_WIDTH = 1200;
const FILTER_DELAY_MILLISECONDS = 250;
const STEP = 16;
const MAX_TOP = 3;
const SVG = "http://www.w3.org/2000/svg";
const BAR_HEIGHT = 24;
const BAR_WIDTH = 4;
const FILTER_HELP = `Text matches if it contains what you type; other values match if they equal it.
= x, != x, > x, >= x, < x, <= x
a..b (with b), a..<b (without b)
/regex/ in texts
! negates: !x, !1..9, !/regex/
= null, != not null
"> x" in quotes: a text that begins with a sign`;

export interface HeaderActions {
  sort: (column: number, adds: boolean) => void;
  filter: (column: number, typed: string) => void;
  resize: (column: number, width: number) => void;
  hide: (column: number) => void;
}

export class Header {
  readonly cell: HTMLTableCellElement;
  readonly nameButton: HTMLButtonElement;
  readonly filter: HTMLInputElement;
  private readonly arrow = make("span", { class: "micromegas-grid-arrow", "aria-hidden": "true" });
  private readonly facts = make("div", { class: "micromegas-grid-facts" });
  private readonly grip: HTMLElement;
  private width = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly column: Column,
    private readonly index: number,
    private readonly rows: number,
    private readonly actions: HeaderActions,
  ) {
    const name = column.name || "(no name)";
    this.nameButton = makeButton("", () => undefined, {
      class: "micromegas-grid-name",
      tabindex: -1,
      title: column.sortable ? "Sort. Shift adds to the order, Delete hides the column, / filters" : "Delete hides",
    });
    this.nameButton.append(make("span", {}, name), this.arrow);
    this.nameButton.addEventListener("click", (event) => {
      if (column.sortable) actions.sort(index, event.shiftKey);
    });
    const hide = makeButton("✕", () => actions.hide(index), {
      class: "micromegas-grid-hide",
      tabindex: -1,
      title: `Hide ${name}`,
      "aria-label": `Hide ${name}`,
    });
    this.filter = make("input", {
      type: "search",
      class: "micromegas-grid-filter",
      tabindex: -1,
      spellcheck: "false",
      autocomplete: "off",
      title: FILTER_HELP,
      "aria-label": `Filter ${name}`,
    });
    this.filter.addEventListener("input", this.typed);
    this.grip = make("span", { class: "micromegas-grid-grip", "aria-hidden": "true" });
    this.grip.addEventListener("pointerdown", this.drag);
    this.grip.addEventListener("dblclick", () => actions.resize(index, 0));
    const unit = column.unit ? ` · ${column.unit}` : "";
    const nulls = column.nulls ? ` · ${share(column.nulls, rows)} null` : "";
    this.cell = make(
      "th",
      { scope: "col", class: column.kind === "number" ? "micromegas-grid-right" : "" },
      make("div", { class: "micromegas-grid-top" }, this.nameButton, hide),
      make("div", { class: "micromegas-grid-type", title: column.arrow_type }, `${column.type}${unit}${nulls}`),
      this.facts,
      this.filter,
      this.grip,
    );
    this.cell.setAttribute("aria-colindex", String(index + 2));
    if (column.sortable) this.cell.setAttribute("aria-sort", "none");
  }

  /** Show what the values are like. */
  showStatistics({ distinct, min, max, bars, bins, top, hint }: Statistics): void {
    this.filter.placeholder = hint;
    this.facts.replaceChildren();
    if (bars.length) {
      const labels = bars.map(
        (count, bar) => `${bins[bar] ?? ""} to ${bins[bar + 1] ?? ""}: ${count.toLocaleString("en")}`,
      );
      this.facts.append(histogram(bars, labels, `Distribution from ${min ?? ""} to ${max ?? ""}`));
    }
    if (min !== null && max !== null) {
      const ends = min === max ? [make("span", {}, min)] : [make("span", {}, min), make("span", {}, max)];
      this.facts.append(make("div", { class: "micromegas-grid-ends", title: `${min} to ${max}` }, ...ends));
    }
    const others = (distinct ?? 0) - MAX_TOP;
    for (const [text, count] of top.slice(0, others > 0 ? MAX_TOP - 1 : MAX_TOP)) {
      const shown = count.toLocaleString("en");
      const line = make(
        "div",
        { class: "micromegas-grid-top-value", title: `${text}: ${shown}` },
        make("span", {}, text || "(empty)"),
        make("span", {}, shown),
      );
      line.style.setProperty("--share", `${(100 * count) / Math.max(this.rows, 1)}%`);
      this.facts.append(line);
    }
    if (others > 0) this.facts.append(make("div", {}, `${(others + 1).toLocaleString("en")} more values`));
  }

  /** Show the column's place in the order, from 0; -1 for none. */
  showOrder(place: number, descending: boolean, columns: number): void {
    this.arrow.textContent = place < 0 ? "" : (descending ? "▼" : "▲") + (columns > 1 ? String(place + 1) : "");
    if (!this.column.sortable) return;
    this.cell.setAttribute("aria-sort", place < 0 ? "none" : descending ? "descending" : "ascending");
  }

  /** Mark the filter as invalid, with the kernel's reason; an empty sentence removes the mark. */
  showFilterError(sentence: string): void {
    this.filter.setAttribute("aria-invalid", String(sentence !== ""));
    this.filter.title = sentence || FILTER_HELP;
  }

  /** Note the width that the grid gave the column. */
  setWidth(width: number): void {
    this.width = width;
  }

  /** Make the column wider or narrower by a step. */
  step(direction: -1 | 1): void {
    this.actions.resize(this.index, this.width + direction * STEP);
  }

  /** Let only the head of the column with the focus be reached by Tab. */
  setReachable(isReachable: boolean): void {
    const tabIndex = isReachable ? 0 : -1;
    if (this.nameButton.tabIndex !== tabIndex) this.nameButton.tabIndex = this.filter.tabIndex = tabIndex;
  }

  close(): void {
    clearTimeout(this.timer);
  }

  private readonly typed = (): void => {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.actions.filter(this.index, this.filter.value.trim()), FILTER_DELAY_MILLISECONDS);
  };

  private readonly drag = (down: PointerEvent): void => {
    down.preventDefault();
    this.grip.setPointerCapture(down.pointerId);
    const start = this.width - down.clientX;
    const move = (event: PointerEvent): void => this.actions.resize(this.index, start + event.clientX);
    const end = (): void => {
      this.grip.removeEventListener("pointermove", move);
      this.grip.removeEventListener("pointerup", end);
      this.grip.removeEventListener("pointercancel", end);
    };
    this.grip.addEventListener("pointermove", move);
    this.grip.addEventListener("pointerup", end);
    this.grip.addEventListener("pointercancel", end);
  };
}

function histogram(counts: number[], labels: string[], label: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * BAR_WIDTH} ${BAR_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const most = Math.max(...counts, 1);
  counts.forEach((count, bar) => {
    // One value is seen, too.
    const height = count === 0 ? 0 : Math.max((BAR_HEIGHT * count) / most, 1);
    const rect = document.createElementNS(SVG, "rect");
    const place = { x: bar * BAR_WIDTH, y: BAR_HEIGHT - height, width: BAR_WIDTH - 0.6, height };
    for (const [name, value] of Object.entries(place)) rect.setAttribute(name, String(value));
    const title = document.createElementNS(SVG, "title");
    title.textContent = labels[bar] ?? "";
    rect.append(title);
    svg.append(rect);
  });
  return svg;
}

function share(part: number, whole: number): string {
  const percent = (100 * part) / Math.max(whole, 1);
  return percent < 0.1 ? "<0.1%" : `${percent.toFixed(percent < 10 ? 1 : 0)}%`;
}
