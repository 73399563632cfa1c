// A column's header: its name, which sorts; its type; a summary of its values; a filter; and a handle for its width.

import { make, makeButton } from "../dom";
import type { Column, Spread } from "./kernel";

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
  pickBars: (column: number, bars: [number, number]) => void;
  pickTop: (column: number, place: number) => void;
}

export class Header {
  readonly cell: HTMLTableCellElement;
  readonly nameButton: HTMLButtonElement;
  readonly filter: HTMLInputElement;
  private readonly arrow = make("span", { class: "micromegas-grid-arrow", "aria-hidden": "true" });
  private readonly facts = make("div", { class: "micromegas-grid-facts" });
  private readonly grip: HTMLElement;
  private reachable: HTMLElement[] = [];
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

  /** Show the distribution of the values: of all rows, overlaid with that of the matching rows. */
  showSpread({ distinct, min, max, ends, bars, matching, bins, top, hint }: Spread): void {
    const focused = this.reachable.findIndex((element) => element === element.ownerDocument.activeElement);
    const parts: HTMLElement[] = [];
    this.filter.placeholder = hint;
    this.reachable = [];
    if (bars.length) {
      const part = (bar: number): string => (matching.length ? `${count(matching[bar] ?? 0)} of ` : "");
      const labels = bars.map((all, bar) => `${bins[bar] ?? ""} to ${bins[bar + 1] ?? ""}: ${part(bar)}${count(all)}`);
      const name = `Distribution of ${this.column.name} from ${min ?? ""} to ${max ?? ""}`;
      const pick = (first: number, last: number): void => this.actions.pickBars(this.index, [first, last]);
      const chart = histogram(bars, matching, labels, name, pick);
      parts.push(chart);
      this.reachable.push(chart);
    }
    if (min !== null && max !== null) {
      const shown = ends.map((end) => make("span", {}, end));
      parts.push(make("div", { class: "micromegas-grid-ends", title: `${min} to ${max}` }, ...shown));
    }
    const others = (distinct ?? 0) - MAX_TOP;
    top.slice(0, others > 0 ? MAX_TOP - 1 : MAX_TOP).forEach(([text, part, all], place) => {
      const shown = part === all ? count(all) : `${count(part)} of ${count(all)}`;
      const line = makeButton("", () => this.actions.pickTop(this.index, place), {
        class: "micromegas-grid-top-value",
        title: `${text}: ${shown}. Click to show only these rows`,
      });
      line.append(make("span", {}, text || "(empty)"), make("span", {}, count(part)));
      line.style.setProperty("--share", `${(100 * part) / Math.max(this.rows, 1)}%`);
      line.style.setProperty("--all", `${(100 * all) / Math.max(this.rows, 1)}%`);
      parts.push(line);
      this.reachable.push(line);
    });
    if (others > 0) parts.push(make("div", {}, `${count(others + 1)} more values`));
    this.facts.replaceChildren(...parts);
    this.reachable.forEach((element) => (element.tabIndex = this.nameButton.tabIndex));
    this.reachable[focused]?.focus({ preventScroll: true });
  }

  /** Show a filter that a click created. */
  showFilter(typed: string): void {
    if (this.filter.value.trim() !== typed) this.filter.value = typed;
    this.cell.classList.toggle("micromegas-grid-filtered", typed !== "");
  }

  /** Show the column's position in the sort order, from 0; -1 if it isn't sorted. */
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

  /** Note the width that the grid assigned to the column. */
  setWidth(width: number): void {
    this.width = width;
  }

  /** Make the column wider or narrower by a step. */
  step(direction: -1 | 1): void {
    this.actions.resize(this.index, this.width + direction * STEP);
  }

  /** Make Tab reach only the header of the column with the focus. */
  setReachable(isReachable: boolean): void {
    const tabIndex = isReachable ? 0 : -1;
    if (this.nameButton.tabIndex === tabIndex) return;
    for (const element of [this.nameButton, this.filter, ...this.reachable]) element.tabIndex = tabIndex;
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

/** Draw bars; a click, a drag, or Enter selects some. Arrow keys move to the next bar, with Shift they add it. */
function histogram(
  counts: number[],
  matching: number[],
  labels: string[],
  label: string,
  pick: (first: number, last: number) => void,
): HTMLElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * BAR_WIDTH} ${BAR_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const most = Math.max(...counts, 1);
  const add = (bar: number, height: number, name: string): SVGRectElement => {
    const rect = document.createElementNS(SVG, "rect");
    const place = { class: name, x: bar * BAR_WIDTH, y: BAR_HEIGHT - height, width: BAR_WIDTH - 0.6, height };
    for (const [key, value] of Object.entries(place)) rect.setAttribute(key, String(value));
    svg.append(rect);
    return rect;
  };
  // Makes a single value visible, too.
  const height = (rows: number): number => (rows === 0 ? 0 : Math.max((BAR_HEIGHT * rows) / most, 1));
  counts.forEach((rows, bar) => add(bar, height(rows), matching.length ? "micromegas-grid-all" : ""));
  matching.forEach((rows, bar) => add(bar, height(rows), ""));
  const hits = counts.map((_, bar) => {
    const hit = add(bar, BAR_HEIGHT, "micromegas-grid-hit"); // the full height is clickable
    const title = document.createElementNS(SVG, "title");
    title.textContent = labels[bar] ?? "";
    hit.append(title);
    return hit;
  });
  const root = make("div", {
    class: "micromegas-grid-bars",
    role: "slider",
    "aria-label": label,
    "aria-valuemin": 1,
    "aria-valuemax": counts.length,
  });
  root.append(svg);
  const last = counts.length - 1;
  let [first, end] = [0, 0];
  const choose = (from: number, to: number, isShown = true): void => {
    [first, end] = [Math.min(Math.max(from, 0), last), Math.min(Math.max(to, 0), last)];
    root.setAttribute("aria-valuenow", String(end + 1));
    root.setAttribute("aria-valuetext", labels[end] ?? "");
    const [low, high] = [Math.min(first, end), Math.max(first, end)];
    hits.forEach((hit, bar) => hit.classList.toggle("micromegas-grid-picked", isShown && bar >= low && bar <= high));
  };
  const barAt = (event: PointerEvent): number => {
    const { left, width } = svg.getBoundingClientRect();
    return Math.floor(((event.clientX - left) / Math.max(width, 1)) * counts.length);
  };
  choose(0, 0, false);
  root.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    root.setPointerCapture(event.pointerId);
    choose(barAt(event), barAt(event));
  });
  root.addEventListener("pointermove", (event) => {
    if (root.hasPointerCapture(event.pointerId)) choose(first, barAt(event));
  });
  root.addEventListener("pointerup", () => pick(first, end));
  root.addEventListener("focus", () => choose(first, end));
  root.addEventListener("blur", () => choose(first, end, false));
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.altKey || (step === undefined && event.key !== "Enter")) return;
    event.preventDefault();
    event.stopPropagation();
    if (step === undefined) pick(first, end);
    else choose(event.shiftKey ? first : end + step, end + step);
  });
  return root;
}

function count(rows: number): string {
  return rows.toLocaleString("en");
}

function share(part: number, whole: number): string {
  const percent = (100 * part) / Math.max(whole, 1);
  return percent < 0.1 ? "<0.1%" : `${percent.toFixed(percent < 10 ? 1 : 0)}%`;
}
