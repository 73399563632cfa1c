// A log: the visible lines, the volume of all lines, and the properties of one. The kernel side is
// notebook/logs/widget.py. Senders control messages and properties, so they become text, never markup.

import { openTrace, suppressShortcuts } from "../base/cells";
import { Kernel } from "../base/kernel";
import { watchTheme } from "../base/theme";
import { make, makeButton } from "../dom";
import type { Model, RenderContext } from "../widget";
import { LEVELS, countText, type Block, type Detail, type Line, type LogAnswers, type State } from "./messages";
import { VolumeChart } from "./volume";

const ROW_HEIGHT = 18;
const MAX_CACHED_LINES = 600;
const BLOCK_LINES = 200;
const PAGE_ROWS = 15;
const WATCH_MILLISECONDS = 20_000;

type StateOp = { [Op in keyof LogAnswers]: LogAnswers[Op] extends State ? Op : never }[keyof LogAnswers];

let views = 0;

class LogView {
  readonly root: HTMLElement;
  private readonly kernel: Kernel<LogAnswers>;
  private readonly name = `micromegas-logs-${++views}`;
  private readonly page = crypto.getRandomValues(new Uint32Array(2)).join("-");
  private state: State | undefined;
  private readonly cache = new Map<number, Line>();
  private fetching = -1;
  private isAtEnd = true;
  private selected = -1;
  private readonly status = make("span", { class: "micromegas-logs-status", role: "status" });
  private readonly message = make("span", { role: "alert" });
  private readonly chips = make("div", { class: "micromegas-logs-chips" });
  private readonly level = make(
    "select",
    { "aria-label": "Level" },
    ...LEVELS.slice(1).map((name, index) => make("option", { value: index + 1 }, `${name} or worse`)),
  );
  private readonly search = make("input", {
    type: "search",
    placeholder: "Search messages",
    "aria-label": "Search messages",
  });
  private readonly follow = makeButton(
    "Follow",
    () => void this.change("follow", { is_on: !this.state?.is_following }),
    {
      "aria-pressed": "false",
    },
  );
  private readonly unwatchTheme = watchTheme(() => this.volume.draw());
  private readonly volume = new VolumeChart((begin, end) => void this.change("range", { begin, end }));
  private readonly pane = make("div", {
    class: "micromegas-logs-pane",
    tabindex: 0,
    role: "listbox",
    "aria-label": "Log lines",
  });
  private readonly sizer = make("div", { class: "micromegas-logs-sizer", role: "presentation" });
  private readonly detail = make("div", {
    class: "micromegas-logs-detail",
    role: "group",
    "aria-label": "Details",
    tabindex: 0,
    hidden: true,
  });
  private readonly observer = new ResizeObserver(() => {
    this.volume.draw();
    this.draw();
  });
  private readonly timer = setInterval(() => this.watch(), WATCH_MILLISECONDS);

  constructor(private readonly model: Model) {
    this.kernel = new Kernel(model);
    this.level.addEventListener("change", () => void this.change("level", { level: Number(this.level.value) }));
    this.search.addEventListener("change", () => void this.change("search", { text: this.search.value }));
    this.pane.append(this.sizer);
    this.pane.addEventListener("scroll", this.scrolled, { passive: true });
    this.pane.addEventListener("keydown", this.keyPressed);
    this.detail.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.closeDetail();
    });
    this.sizer.addEventListener("click", (event) => {
      const line = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-line]") : null;
      if (line) this.select(Number(line.dataset.line));
    });
    this.root = make(
      "div",
      { class: "micromegas-logs", role: "group", "aria-label": "Log" },
      make(
        "div",
        { class: "micromegas-logs-bar" },
        this.status,
        this.message,
        this.level,
        this.search,
        makeButton("Patterns", () => void this.showPatterns()),
        this.follow,
      ),
      this.chips,
      this.volume.root,
      make("div", { class: "micromegas-logs-body" }, this.pane, this.detail),
    );
    suppressShortcuts(this.root);
    this.observer.observe(this.root);
    model.on("msg:custom", this.receive);
    this.watch();
    void this.change("state", {});
  }

  close(): void {
    clearInterval(this.timer);
    this.observer.disconnect();
    this.unwatchTheme();
    this.model.off("msg:custom", this.receive);
    this.kernel.close();
    this.model.send({ id: 0, op: "leave", page: this.page });
  }

  /** A follow stops when no page sends this for some time, or when the output is removed. */
  private watch(): void {
    this.model.send({ id: 0, op: "watch", page: this.page });
  }

  private readonly receive = ({ news }: { news?: State }): void => {
    if (news) this.show(news);
  };

  /** Change the view; if the kernel can't, the view stays unchanged and shows the reason. */
  private async change(op: StateOp, details: object): Promise<void> {
    await this.tell(async () => {
      this.say("Loading…");
      const { answer } = await this.kernel.ask(op, details);
      const hasFocus = this.root.contains(document.activeElement);
      this.say("");
      if (op !== "state" && op !== "follow") {
        this.cache.clear();
        this.selected = -1;
        this.isAtEnd = true;
        this.showDetail();
      }
      this.show(answer);
      // The button may be gone.
      if (hasFocus && !this.root.contains(document.activeElement)) this.pane.focus({ preventScroll: true });
    });
  }

  private async tell(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.say((error as Error).message);
    }
  }

  private say(sentence: string): void {
    this.message.textContent = sentence;
  }

  private show(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.error) this.say(state.error);
    const skipped = state.skipped ? ` · ${countText(state.skipped)} older ones not shown` : "";
    this.status.textContent = `${countText(state.total)} ${state.total === 1 ? "line" : "lines"}${skipped}`;
    this.follow.setAttribute("aria-pressed", String(state.is_following));
    this.level.value = String(state.level);
    if (!this.search.matches(":focus")) this.search.value = state.search;
    this.showFilters(state);
    this.volume.show(state);
    this.remember(state.tail);
    this.sizer.style.height = `${(state.next - state.first) * ROW_HEIGHT}px`;
    if (this.isAtEnd) this.pane.scrollTop = this.pane.scrollHeight;
    // Lines that are dropped at the top don't move visible ones.
    else if (before) this.pane.scrollTop -= Math.max(state.first - before.first, 0) * ROW_HEIGHT;
    this.draw();
  }

  private showFilters({ filters }: State): void {
    const texts = filters.map(([key, value, isExcluded]) => `${key} ${isExcluded ? "≠" : "="} ${value}`);
    if (texts.join("\n") === [...this.chips.children].map((chip) => (chip as HTMLElement).dataset.text).join("\n"))
      return;
    this.chips.replaceChildren(
      ...texts.map((text, index) =>
        makeButton(`${text} ✕`, () => void this.change("unfilter", { index }), {
          "data-text": text,
          "aria-label": `Remove the filter ${text}`,
        }),
      ),
    );
  }

  private remember({ first, lines }: Block): void {
    lines.forEach((line, index) => {
      this.cache.delete(first + index);
      this.cache.set(first + index, line);
    });
    for (const number of this.cache.keys()) {
      if (this.cache.size <= MAX_CACHED_LINES) break;
      this.cache.delete(number);
    }
  }

  private draw(): void {
    const { state } = this;
    if (!state) return;
    const top = Math.max(state.first + Math.floor(this.pane.scrollTop / ROW_HEIGHT) - 2, state.first);
    const bottom = Math.min(top + Math.ceil(this.pane.clientHeight / ROW_HEIGHT) + 4, state.next);
    const numbers = Array.from({ length: Math.max(bottom - top, 0) }, (_, index) => top + index);
    this.sizer.replaceChildren(...numbers.map((number) => this.makeRow(number, number - state.first)));
    // It may reference a line in the page only.
    if (numbers.includes(this.selected)) this.pane.setAttribute("aria-activedescendant", this.idOf(this.selected));
    else this.pane.removeAttribute("aria-activedescendant");
    if (this.fetching < 0 && numbers.some((number) => !this.cache.has(number))) void this.fetch(top);
  }

  private async fetch(top: number): Promise<void> {
    this.fetching = top;
    await this.tell(async () => {
      const first = Math.max(top - (BLOCK_LINES - PAGE_ROWS) / 2, 0);
      const { answer } = await this.kernel.ask("lines", { first, count: BLOCK_LINES });
      this.remember(answer);
    });
    this.fetching = -1;
    requestAnimationFrame(() => this.root.isConnected && this.draw());
  }

  private makeRow(number: number, place: number): HTMLElement {
    const [time, level, service, target, text] = this.cache.get(number) ?? ["…", 0, "", "", ""];
    const row = make(
      "div",
      {
        class: `micromegas-logs-line micromegas-logs-level${level}`,
        role: "option",
        id: this.idOf(number),
        "aria-selected": String(number === this.selected),
        "data-line": number,
      },
      make("span", {}, time),
      make("b", {}, LEVELS[level] ?? String(level)),
      make("span", { class: "micromegas-logs-target" }, [service, target].filter(Boolean).join(" ")),
      make("span", { class: "micromegas-logs-text" }, text),
    );
    row.style.top = `${place * ROW_HEIGHT}px`;
    return row;
  }

  private idOf(number: number): string {
    return `${this.name}-${number}`;
  }

  private readonly scrolled = (): void => {
    const { scrollTop, clientHeight, scrollHeight } = this.pane;
    this.isAtEnd = scrollTop + clientHeight >= scrollHeight - ROW_HEIGHT;
    this.draw();
  };

  private select(number: number): void {
    const { state } = this;
    if (!state || state.next === state.first) return;
    this.selected = Math.max(Math.min(number, state.next - 1), state.first);
    const y = (this.selected - state.first) * ROW_HEIGHT;
    const last = y + ROW_HEIGHT - this.pane.clientHeight;
    if (y < this.pane.scrollTop) this.pane.scrollTop = y;
    else if (last > this.pane.scrollTop) this.pane.scrollTop = last;
    this.draw();
    const line = this.selected;
    void this.tell(async () => {
      const { answer } = await this.kernel.ask("detail", { line });
      if (line === this.selected) this.showDetail(...this.describe(answer));
    });
  }

  private readonly keyPressed = (event: KeyboardEvent): void => {
    const { state } = this;
    if (!state) return;
    const at = this.selected < state.first ? state.next - 1 : this.selected;
    const isFirst = this.selected < 0;
    const moves: Record<string, number> = {
      ArrowUp: isFirst ? at : at - 1,
      ArrowDown: isFirst ? at : at + 1,
      PageUp: at - PAGE_ROWS,
      PageDown: at + PAGE_ROWS,
      Home: state.first,
      End: state.next - 1,
    };
    const to = moves[event.key];
    if (to !== undefined) this.select(to);
    else if (event.key === "Enter" && !this.detail.hidden) this.detail.focus();
    else if (event.key === "Escape") this.showDetail();
    else if (event.key === "/") this.search.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  private readonly closeDetail = (): void => {
    this.showDetail();
    this.pane.focus({ preventScroll: true });
  };

  private showDetail(...content: HTMLElement[]): void {
    const close = makeButton("Close", this.closeDetail);
    this.detail.hidden = content.length === 0;
    this.detail.replaceChildren(...(content.length ? [...content, close] : []));
  }

  private describe({ line, time, level, message, values, trace_id }: Detail): HTMLElement[] {
    const filter = (key: string, is_excluded: boolean): void => void this.change("filter", { line, key, is_excluded });
    const rows = values.map(([key, value]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, key),
        make("td", {}, value),
        make(
          "td",
          {},
          makeButton("Only", () => filter(key, false), { "aria-label": `Only lines with this ${key}` }),
          makeButton("Not", () => filter(key, true), { "aria-label": `No lines with this ${key}` }),
        ),
      ),
    );
    const actions = [makeButton("±1 minute", () => void this.change("around", { line }))];
    if (trace_id) actions.push(makeButton("Its trace", () => void this.openTrace(trace_id)));
    return [
      make("h3", {}, `${LEVELS[level] ?? String(level)} ${time}`),
      make("pre", {}, message),
      make("div", { class: "micromegas-logs-actions" }, ...actions),
      make("table", {}, make("tbody", {}, ...rows)),
    ];
  }

  private async openTrace(traceId: string): Promise<void> {
    await this.tell(async () => {
      this.say(await openTrace(this.root, traceId));
    });
  }

  private async showPatterns(): Promise<void> {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("patterns");
      const more = answer.count - answer.patterns.length;
      const rows = answer.patterns.map(([text, count, level]) =>
        make(
          "tr",
          { class: `micromegas-logs-level${level}` },
          make("td", { class: "micromegas-logs-count" }, countText(count)),
          make("td", {}, make("b", {}, LEVELS[level] ?? String(level))),
          make("td", {}, text),
        ),
      );
      const title = `${countText(answer.count)} patterns${more > 0 ? `, the ${rows.length} most frequent` : ""}`;
      this.showDetail(make("h3", {}, title), make("table", {}, make("tbody", {}, ...rows)));
      this.detail.focus({ preventScroll: true });
    });
  }
}

export default {
  render({ model, el }: RenderContext): () => void {
    const view = new LogView(model);
    el.append(view.root);
    return () => view.close();
  },
};
