// src/dom.ts
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}
function makeButton(text, onClick, attributes = {}) {
  const button = make("button", { type: "button", ...attributes }, text);
  button.addEventListener("click", onClick);
  return button;
}
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copySelected(text))
      throw new Error("The browser does not let this page copy. Open it over https, or download a file.");
  }
}
function copySelected(text) {
  const focused = document.activeElement;
  const field = make("textarea", { readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  field.style.cssText = "position: fixed; top: 0; left: 0; opacity: 0";
  for (const event of ["keydown", "copy", "focusin"]) field.addEventListener(event, (each) => each.stopPropagation());
  document.body.append(field);
  try {
    field.select();
    return document.execCommand("copy");
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}

// src/grid/blocks.ts
var BLOCK_ROWS = 200;
var MAX_BLOCKS = 50;
var MAX_FETCHING = 2;
var Blocks = class {
  constructor(kernel, total, first, onChange, onError) {
    this.kernel = kernel;
    this.total = total;
    this.first = first;
    this.onChange = onChange;
    this.onError = onError;
  }
  kernel;
  total;
  first;
  onChange;
  onError;
  order = { filters: {}, sort: [] };
  blocks = /* @__PURE__ */ new Map();
  wanted = [];
  fetching = /* @__PURE__ */ new Set();
  /** How often another order was asked for: only the last one counts. */
  arranged = 0;
  /** Show the rows in another order; rejects when the kernel refuses it, and the order stays as it was. */
  async arrange(order) {
    const number = ++this.arranged;
    const { answer } = await this.kernel.ask("rows", { order, first: 0, count: BLOCK_ROWS });
    if (number !== this.arranged) return false;
    this.order = order;
    this.total = answer.total;
    this.blocks = /* @__PURE__ */ new Map([[0, answer.texts]]);
    this.fetching = /* @__PURE__ */ new Set();
    this.first = [];
    this.onChange();
    return true;
  }
  /** Return a cell's text; undefined while it is on its way. */
  text(row, column) {
    const block = this.blocks.get(Math.floor(row / BLOCK_ROWS));
    return block ? block[column]?.[row % BLOCK_ROWS] : this.first[column]?.[row];
  }
  /** Fetch the blocks of these rows, and then the next one on either side. */
  need(firstRow, lastRow) {
    const last = Math.floor(Math.max(this.total - 1, 0) / BLOCK_ROWS);
    const from = Math.floor(firstRow / BLOCK_ROWS);
    const to = Math.min(Math.floor(lastRow / BLOCK_ROWS), last);
    const near = Array.from({ length: to - from + 1 }, (_, place) => from + place);
    this.wanted = [...near, to + 1, from - 1].filter((block) => block >= 0 && block <= last && !this.touch(block));
    this.fetchNext();
  }
  /** Note that a block is in use; returns false for one that is not there. */
  touch(block) {
    const texts = this.blocks.get(block);
    if (!texts) return false;
    this.blocks.delete(block);
    this.blocks.set(block, texts);
    return true;
  }
  fetchNext() {
    for (const block of this.wanted) {
      if (this.fetching.size >= MAX_FETCHING) return;
      if (!this.fetching.has(block) && !this.blocks.has(block)) void this.fetch(block);
    }
  }
  async fetch(block) {
    const { blocks, fetching, order } = this;
    fetching.add(block);
    try {
      const { answer } = await this.kernel.ask("rows", { order, first: block * BLOCK_ROWS, count: BLOCK_ROWS });
      fetching.delete(block);
      if (blocks !== this.blocks) return;
      blocks.set(block, answer.texts);
      const oldest = blocks.keys().next().value;
      if (blocks.size > MAX_BLOCKS && oldest !== void 0) blocks.delete(oldest);
      this.onChange();
      this.fetchNext();
    } catch (error) {
      fetching.delete(block);
      if (blocks === this.blocks) this.onError(error);
    }
  }
};

// src/grid/export.ts
var POLL_MILLISECONDS = 250;
var FORMATS = [
  ["csv", "CSV"],
  ["parquet", "Parquet"],
  ["arrow", "Arrow"]
];
var Exports = class {
  constructor(kernel, rows, say) {
    this.kernel = kernel;
    this.rows = rows;
    this.say = say;
    this.buttons.append(
      this.place,
      ...FORMATS.map(
        ([format, name]) => makeButton(`↓ ${name}`, () => void this.start(format), {
          title: "Export the rows that match, with the columns that are shown",
          "aria-label": `Download ${name}`
        })
      )
    );
    this.place.addEventListener("change", () => {
      const verb = this.place.value === "download" ? "Download" : "Save";
      for (const [index, button] of [...this.buttons.querySelectorAll("button")].entries())
        button.setAttribute("aria-label", `${verb} ${FORMATS[index]?.[1] ?? ""}`);
    });
    const cancel = makeButton("Cancel", () => this.isCanceled = true, { "aria-label": "Cancel the export" });
    this.running = make("span", { class: "micromegas-grid-export", hidden: true }, this.bar, this.text, cancel);
    this.root = make("span", {}, this.buttons, this.running);
  }
  kernel;
  rows;
  say;
  root;
  place = make(
    "select",
    { "aria-label": "Export to" },
    make("option", { value: "download" }, "Download"),
    make("option", { value: "folder" }, "Save in the notebook's folder")
  );
  buttons = make("span", { class: "micromegas-grid-export", role: "group", "aria-label": "Export" });
  bar = make("progress", { "aria-label": "Export", max: 1, value: 0 });
  text = make("span");
  running;
  isCanceled = false;
  async start(format) {
    const button = this.buttons.ownerDocument.activeElement;
    const to = this.place.value;
    this.isCanceled = false;
    this.show("", 0);
    this.say("");
    let sentence;
    try {
      const { answer } = await this.kernel.ask("export", { ...this.rows(), format, to });
      sentence = await this.follow(answer.export, to);
    } catch (error) {
      sentence = error.message;
    }
    const hadFocus = this.running.contains(this.running.ownerDocument.activeElement);
    this.running.hidden = true;
    this.buttons.hidden = false;
    if (hadFocus && button instanceof HTMLElement) button.focus({ preventScroll: true });
    this.say(sentence);
  }
  /** Wait until the file is complete, and download it; returns the sentence to show. */
  async follow(id, to) {
    try {
      for (; ; ) {
        const { answer } = await this.kernel.ask("export_state", { export: id });
        if (answer.size !== null && to === "folder") return `Saved in the notebook's folder: ${answer.name}`;
        if (this.isCanceled) return "Export canceled.";
        if (answer.size !== null) return await this.download(id, answer.size, answer.name, answer.type);
        const rows = answer.rows.toLocaleString("en");
        this.show(`${rows} of ${answer.total.toLocaleString("en")} rows`, answer.rows / Math.max(answer.total, 1));
        await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
      }
    } finally {
      await this.kernel.ask("export_end", { export: id }).catch(() => void 0);
    }
  }
  async download(id, size, name, type) {
    const parts = [];
    for (let first = 0; first < size; ) {
      const { buffers } = await this.kernel.ask("export_part", { export: id, first });
      if (this.isCanceled) return "Export canceled.";
      const [part] = buffers;
      if (!part?.byteLength) throw new Error("The file is incomplete. Export the rows again.");
      parts.push(part);
      first += part.byteLength;
      this.show(`${Math.floor(100 * first / size)}% downloaded`, first / size);
    }
    const url = URL.createObjectURL(new Blob(parts, { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 0);
    return `Downloaded ${name}`;
  }
  show(text, value) {
    const hadFocus = this.buttons.contains(this.buttons.ownerDocument.activeElement);
    this.buttons.hidden = true;
    this.running.hidden = false;
    if (hadFocus) this.running.querySelector("button")?.focus({ preventScroll: true });
    this.text.textContent = text;
    this.bar.value = value;
  }
};

// src/grid/header.ts
var MIN_WIDTH = 48;
var MAX_WIDTH = 1200;
var FILTER_DELAY_MILLISECONDS = 250;
var STEP = 16;
var MAX_TOP = 3;
var SVG = "http://www.w3.org/2000/svg";
var BAR_HEIGHT = 24;
var BAR_WIDTH = 4;
var FILTER_HELP = `Text matches if it contains what you type; other values match if they equal it.
= x, != x, > x, >= x, < x, <= x
a..b (with b), a..<b (without b)
/regex/ in texts
! negates: !x, !1..9, !/regex/
= null, != not null
"> x" in quotes: a text that begins with a sign`;
var Header = class {
  constructor(column, index, rows, actions) {
    this.column = column;
    this.index = index;
    this.rows = rows;
    this.actions = actions;
    const name = column.name || "(no name)";
    this.nameButton = makeButton("", () => void 0, {
      class: "micromegas-grid-name",
      tabindex: -1,
      title: column.sortable ? "Sort. Shift adds to the order, Delete hides the column, / filters" : "Delete hides"
    });
    this.nameButton.append(make("span", {}, name), this.arrow);
    this.nameButton.addEventListener("click", (event) => {
      if (column.sortable) actions.sort(index, event.shiftKey);
    });
    const hide = makeButton("✕", () => actions.hide(index), {
      class: "micromegas-grid-hide",
      tabindex: -1,
      title: `Hide ${name}`,
      "aria-label": `Hide ${name}`
    });
    this.filter = make("input", {
      type: "search",
      class: "micromegas-grid-filter",
      tabindex: -1,
      spellcheck: "false",
      autocomplete: "off",
      title: FILTER_HELP,
      "aria-label": `Filter ${name}`
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
      this.grip
    );
    this.cell.setAttribute("aria-colindex", String(index + 2));
    if (column.sortable) this.cell.setAttribute("aria-sort", "none");
  }
  column;
  index;
  rows;
  actions;
  cell;
  nameButton;
  filter;
  arrow = make("span", { class: "micromegas-grid-arrow", "aria-hidden": "true" });
  facts = make("div", { class: "micromegas-grid-facts" });
  grip;
  width = 0;
  timer;
  /** Show what the values are like. */
  showStatistics({ distinct, min, max, bars, bins, top, hint }) {
    this.filter.placeholder = hint;
    this.facts.replaceChildren();
    if (bars.length) {
      const labels = bars.map(
        (count, bar) => `${bins[bar] ?? ""} to ${bins[bar + 1] ?? ""}: ${count.toLocaleString("en")}`
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
        make("span", {}, shown)
      );
      line.style.setProperty("--share", `${100 * count / Math.max(this.rows, 1)}%`);
      this.facts.append(line);
    }
    if (others > 0) this.facts.append(make("div", {}, `${(others + 1).toLocaleString("en")} more values`));
  }
  /** Show the column's place in the order, from 0; -1 for none. */
  showOrder(place, descending, columns) {
    this.arrow.textContent = place < 0 ? "" : (descending ? "▼" : "▲") + (columns > 1 ? String(place + 1) : "");
    if (!this.column.sortable) return;
    this.cell.setAttribute("aria-sort", place < 0 ? "none" : descending ? "descending" : "ascending");
  }
  /** Mark the filter as invalid, with the kernel's reason; an empty sentence removes the mark. */
  showFilterError(sentence) {
    this.filter.setAttribute("aria-invalid", String(sentence !== ""));
    this.filter.title = sentence || FILTER_HELP;
  }
  /** Note the width that the grid gave the column. */
  setWidth(width) {
    this.width = width;
  }
  /** Make the column wider or narrower by a step. */
  step(direction) {
    this.actions.resize(this.index, this.width + direction * STEP);
  }
  /** Let only the head of the column with the focus be reached by Tab. */
  setReachable(isReachable) {
    const tabIndex = isReachable ? 0 : -1;
    if (this.nameButton.tabIndex !== tabIndex) this.nameButton.tabIndex = this.filter.tabIndex = tabIndex;
  }
  close() {
    clearTimeout(this.timer);
  }
  typed = () => {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.actions.filter(this.index, this.filter.value.trim()), FILTER_DELAY_MILLISECONDS);
  };
  drag = (down) => {
    down.preventDefault();
    this.grip.setPointerCapture(down.pointerId);
    const start = this.width - down.clientX;
    const move = (event) => this.actions.resize(this.index, start + event.clientX);
    const end = () => {
      this.grip.removeEventListener("pointermove", move);
      this.grip.removeEventListener("pointerup", end);
      this.grip.removeEventListener("pointercancel", end);
    };
    this.grip.addEventListener("pointermove", move);
    this.grip.addEventListener("pointerup", end);
    this.grip.addEventListener("pointercancel", end);
  };
};
function histogram(counts, labels, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * BAR_WIDTH} ${BAR_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const most = Math.max(...counts, 1);
  counts.forEach((count, bar) => {
    const height = count === 0 ? 0 : Math.max(BAR_HEIGHT * count / most, 1);
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
function share(part, whole) {
  const percent = 100 * part / Math.max(whole, 1);
  return percent < 0.1 ? "<0.1%" : `${percent.toFixed(percent < 10 ? 1 : 0)}%`;
}

// src/grid/kernel.ts
var DEADLINE_MILLISECONDS = 12e4;
var Kernel = class {
  constructor(model) {
    this.model = model;
    model.on("msg:custom", this.receive);
  }
  model;
  // Each view of a grid hears the answers to all of them.
  next = Math.floor(Math.random() * 2 ** 40) * 1e3;
  waiting = /* @__PURE__ */ new Map();
  /** Ask for something; rejects with a sentence to show when the kernel refuses or does not answer. */
  async ask(op, details = {}) {
    const id = this.next++;
    const reply = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Error("The kernel does not answer. Run the cell again."));
      }, DEADLINE_MILLISECONDS);
      this.waiting.set(id, { resolve, reject, timer });
      this.model.send({ id, op, ...details });
    });
    return reply;
  }
  close() {
    this.model.off("msg:custom", this.receive);
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
  }
  receive = (reply, buffers = []) => {
    const waiting = this.waiting.get(Number(reply.id));
    if (!waiting) return;
    this.waiting.delete(Number(reply.id));
    clearTimeout(waiting.timer);
    if (typeof reply.error === "string") waiting.reject(new Error(reply.error));
    else waiting.resolve({ answer: reply.answer, buffers });
  };
};

// src/grid/grid.ts
var ROW_HEIGHT = 24;
var VISIBLE_ROWS = 15;
var MAX_HEIGHT = 8e6;
var NUMBER_WIDTH = 24;
var CHARACTER_WIDTH = 8.2;
var MIN_FITTING_WIDTH = 112;
var MAX_FITTING_WIDTH = 340;
var grid_default = {
  render({ model, el }) {
    const grid = new Grid(model);
    el.append(grid.root);
    return () => grid.close();
  }
};
var Grid = class {
  root;
  kernel;
  columns;
  rowCount;
  blocks;
  headers;
  fittingWidths;
  widths;
  hidden = /* @__PURE__ */ new Set();
  order = { filters: {}, sort: [] };
  firstRow = 0;
  focus = { row: 0, place: 0 };
  anchor = { row: 0, place: 0 };
  isSelecting = false;
  numberWidth;
  status = make("span", { class: "micromegas-grid-status", role: "status" });
  message = make("span", { class: "micromegas-grid-message", role: "alert" });
  showHidden = makeButton("", () => this.unhide(), { hidden: true });
  scroller = make("div", { class: "micromegas-grid-scroller" });
  sizer = make("div", { class: "micromegas-grid-sizer" });
  widthElements = make("colgroup");
  headRow = make("tr", { "aria-rowindex": 1 });
  body = make("tbody");
  table;
  detail = make("section", {
    class: "micromegas-grid-detail",
    "aria-label": "Whole value",
    hidden: true
  });
  observer = new ResizeObserver(() => this.draw());
  constructor(model) {
    this.kernel = new Kernel(model);
    this.columns = model.get("columns");
    this.rowCount = model.get("total");
    const first = model.get("first");
    this.blocks = new Blocks(
      this.kernel,
      this.rowCount,
      first,
      () => this.draw(),
      (error) => this.say(error.message)
    );
    this.fittingWidths = this.columns.map((column, index) => fittingWidth(column, first[index] ?? []));
    this.widths = [...this.fittingWidths];
    this.numberWidth = NUMBER_WIDTH + Math.max(String(this.rowCount).length, "row".length) * CHARACTER_WIDTH;
    this.headers = this.columns.map(
      (column, index) => new Header(column, index, this.rowCount, {
        sort: this.sort,
        filter: this.filter,
        resize: this.resize,
        hide: this.hide
      })
    );
    this.table = make(
      "table",
      {
        role: "grid",
        "aria-label": "Rows of the result",
        "aria-colcount": this.columns.length + 1,
        "aria-multiselectable": "true"
      },
      this.widthElements,
      make("thead", {}, this.headRow),
      this.body
    );
    this.sizer.append(this.table);
    this.scroller.append(this.sizer);
    this.root = make(
      "section",
      { class: "micromegas-grid", "aria-label": "Result" },
      this.buildBar(),
      this.scroller,
      this.detail
    );
    const note = model.get("note");
    if (note) this.root.append(make("p", { class: "micromegas-grid-note" }, note));
    this.root.addEventListener(
      "focusin",
      (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")
    );
    this.scroller.addEventListener("scroll", this.scrolled, { passive: true });
    this.table.addEventListener("keydown", this.keyPressed);
    this.body.addEventListener("pointerdown", this.pointerPressed);
    this.body.addEventListener("pointerover", this.pointerMoved);
    this.body.addEventListener("pointerup", () => this.isSelecting = false);
    this.body.addEventListener("dblclick", () => void this.expand());
    this.headRow.addEventListener("focusin", this.headFocused);
    this.observer.observe(this.headRow);
    this.observer.observe(this.scroller);
    this.layOut();
    void this.loadStatistics();
  }
  close() {
    this.observer.disconnect();
    this.headers.forEach((header) => header.close());
    this.kernel.close();
  }
  buildBar() {
    const exports = new Exports(
      this.kernel,
      () => ({ order: this.blocks.order, hidden: [...this.hidden] }),
      (sentence) => this.say(sentence)
    );
    return make(
      "div",
      { class: "micromegas-grid-bar" },
      this.status,
      this.message,
      make("span", { class: "micromegas-grid-space" }),
      this.showHidden,
      makeButton("Copy", () => void this.copy(), { title: "Copy the selected cells (Ctrl+C)" }),
      exports.root
    );
  }
  /** The rows are there first; what the columns are like comes one after another. */
  async loadStatistics() {
    for (const [column, header] of this.headers.entries()) {
      try {
        header.showStatistics((await this.kernel.ask("statistics", { column })).answer);
      } catch {
        return;
      }
    }
  }
  shown() {
    return this.columns.map((_, column) => column).filter((column) => !this.hidden.has(column));
  }
  layOut() {
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
    this.table.style.width = this.sizer.style.width = `${total}px`;
    const corner = make("th", { scope: "col", "aria-colindex": 1 }, "row");
    const cells = shown.flatMap((column) => this.headers[column]?.cell ?? []);
    const known = [...this.headRow.cells].slice(1);
    if (known.length !== cells.length || known.some((cell, place) => cell !== cells[place]))
      this.headRow.replaceChildren(corner, ...cells);
    this.showHidden.hidden = this.hidden.size === 0;
    this.showHidden.textContent = `Show ${this.hidden.size} hidden`;
    this.focus.place = clamp(this.focus.place, shown.length);
    this.draw();
  }
  visibleRows() {
    return Math.min(VISIBLE_ROWS, this.blocks.total);
  }
  draw() {
    const { total } = this.blocks;
    const visible = this.visibleRows();
    const shown = this.shown();
    const inSight = this.placesInSight(shown);
    this.firstRow = clamp(this.firstRow, total - visible + 1);
    this.table.setAttribute("aria-rowcount", String(total + 1));
    const headHeight = this.table.tHead?.offsetHeight ?? 0;
    const bar = this.scroller.offsetHeight - this.scroller.clientHeight;
    setStyle(this.scroller, "maxHeight", headHeight + visible * ROW_HEIGHT + Math.max(bar, 2));
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
  /** Return the first and the last place that can be seen: of a wide result only those cells are filled. */
  placesInSight(shown) {
    const { scrollLeft, clientWidth } = this.scroller;
    let right = this.numberWidth;
    const ends = shown.map((column) => right += this.widths[column] ?? 0);
    const first = ends.findIndex((end) => end > scrollLeft);
    const last = ends.findIndex((end) => end >= scrollLeft + clientWidth);
    return [Math.max(first, 0), last < 0 ? shown.length - 1 : last];
  }
  drawRow(row, line, shown, [firstPlace, lastPlace]) {
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
      const isInSight = place >= firstPlace && place <= lastPlace || isInFocus;
      const text = isInSight ? this.blocks.text(row, column) : "";
      const isNumber = this.columns[column]?.kind === "number";
      const shownText = text === void 0 ? "…" : text ?? "null";
      if (cell.textContent !== shownText) cell.textContent = shownText;
      setAttribute(cell, "class", text === null ? "micromegas-grid-null" : isNumber ? "micromegas-grid-right" : "");
      setAttribute(cell, "aria-colindex", column + 2);
      setAttribute(cell, "aria-selected", String(this.isSelected(row, place)));
      setAttribute(cell, "tabindex", isInFocus ? 0 : -1);
    });
  }
  drawStatus(visible, columns) {
    const { total } = this.blocks;
    const number = (value) => value.toLocaleString("en");
    const range = total === 0 ? "no rows" : `rows ${number(this.firstRow + 1)}–${number(this.firstRow + visible)} of ${number(total)}`;
    const matching = total === this.rowCount ? "" : ` that match, ${number(this.rowCount)} in all`;
    const hidden = columns === this.columns.length ? "" : `${columns} of `;
    const noun = this.columns.length === 1 ? "column" : "columns";
    const sentence = `${range}${matching} · ${hidden}${this.columns.length} ${noun}`;
    if (this.status.textContent !== sentence) this.status.textContent = sentence;
  }
  scrolled = () => {
    const range = this.scroller.scrollHeight - this.scroller.clientHeight;
    const last = this.blocks.total - this.visibleRows();
    this.firstRow = range > 0 ? Math.round(this.scroller.scrollTop / range * last) : 0;
    this.draw();
  };
  scrollTo(row) {
    const range = this.scroller.scrollHeight - this.scroller.clientHeight;
    const last = this.blocks.total - this.visibleRows();
    this.firstRow = row;
    this.scroller.scrollTop = last > 0 ? row / last * range : 0;
    this.draw();
  }
  sort = (column, adds) => {
    const known = this.order.sort.find(([sorted]) => sorted === column);
    const others = adds ? this.order.sort.filter(([sorted]) => sorted !== column) : [];
    const next = known === void 0 ? [[column, false]] : known[1] ? [] : [[column, true]];
    void this.arrange({ ...this.order, sort: [...others, ...next] });
  };
  filter = (column, typed) => {
    const filters = Object.fromEntries(
      Object.entries(this.order.filters).filter(([known]) => Number(known) !== column)
    );
    void this.arrange({ ...this.order, filters: typed ? { ...filters, [column]: typed } : filters }, column);
  };
  async arrange(order, filtered) {
    const header = filtered === void 0 ? void 0 : this.headers[filtered];
    try {
      this.order = order;
      if (!await this.blocks.arrange(order)) return;
      this.say("");
      header?.showFilterError("");
    } catch (error) {
      if (this.order !== order) return;
      const sentence = error.message;
      this.order = this.blocks.order;
      this.say(sentence);
      header?.showFilterError(sentence);
      return;
    }
    this.headers.forEach((each, column) => {
      const place = order.sort.findIndex(([sorted]) => sorted === column);
      each.showOrder(place, order.sort[place]?.[1] ?? false, order.sort.length);
    });
    this.focus.row = this.anchor.row = 0;
    this.scrollTo(0);
  }
  /** Give a column a width in pixels; 0 for the one that fits. */
  resize = (column, width) => {
    const fitting = this.fittingWidths[column] ?? MIN_FITTING_WIDTH;
    this.widths[column] = width === 0 ? fitting : Math.min(Math.max(width, MIN_WIDTH), MAX_WIDTH);
    this.layOut();
  };
  hide = (column) => {
    if (this.hidden.size + 1 >= this.columns.length) {
      this.say("One column stays.");
      return;
    }
    this.hidden.add(column);
    this.layOut();
    this.headerInFocus()?.nameButton.focus();
  };
  unhide() {
    this.hidden.clear();
    this.layOut();
    this.headerInFocus()?.nameButton.focus();
  }
  bounds() {
    const ordered = (one, other) => [Math.min(one, other), Math.max(one, other)];
    return {
      rows: ordered(this.anchor.row, this.focus.row),
      places: ordered(this.anchor.place, this.focus.place)
    };
  }
  isSelected(row, place) {
    const { rows, places } = this.bounds();
    const isOne = rows[0] === rows[1] && places[0] === places[1];
    return !isOne && row >= rows[0] && row <= rows[1] && place >= places[0] && place <= places[1];
  }
  focusedCell() {
    return this.body.rows[this.focus.row - this.firstRow]?.cells[this.focus.place + 1];
  }
  headerInFocus() {
    return this.headers[this.shown()[this.focus.place] ?? -1];
  }
  headFocused = (event) => {
    const place = this.shown().findIndex((column) => this.headers[column]?.cell.contains(event.target));
    if (place < 0 || place === this.focus.place) return;
    this.focus.place = this.anchor.place = place;
    this.draw();
  };
  pointerPressed = (event) => {
    const found = this.findPosition(event.target);
    if (!found || event.button !== 0) return;
    event.preventDefault();
    if (found.place < 0) this.selectRows(found.row, event.shiftKey);
    else this.moveTo(found, event.shiftKey);
    this.isSelecting = true;
  };
  pointerMoved = (event) => {
    if (!this.isSelecting || event.buttons !== 1) return;
    const found = this.findPosition(event.target);
    if (!found) return;
    if (found.place < 0) this.selectRows(found.row, true);
    else this.moveTo(found, true);
  };
  findPosition(target) {
    const cell = target instanceof Element ? target.closest("td, th") : null;
    if (!(cell instanceof HTMLTableCellElement) || !(cell.parentElement instanceof HTMLTableRowElement))
      return void 0;
    return { row: this.firstRow + cell.parentElement.sectionRowIndex, place: cell.cellIndex - 1 };
  }
  selectRows(row, extends_) {
    if (!extends_) this.anchor.row = row;
    this.anchor.place = 0;
    this.focus = { row, place: this.shown().length - 1 };
    this.draw();
    this.focusedCell()?.focus({ preventScroll: true });
  }
  moveTo({ row, place }, extends_) {
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
  /** Scroll sideways until a cell stands beside the row numbers, which cover the left edge. */
  showPlace(cell) {
    if (!cell) return;
    const left = cell.offsetLeft - this.numberWidth;
    const right = cell.offsetLeft + cell.offsetWidth - this.scroller.clientWidth;
    if (this.scroller.scrollLeft > left) this.scroller.scrollLeft = left;
    else if (this.scroller.scrollLeft < right) this.scroller.scrollLeft = right;
  }
  keyPressed = (event) => {
    if (event.target instanceof HTMLInputElement) {
      if (event.key !== "Escape" && event.key !== "Enter" && event.key !== "ArrowDown") return;
      if (event.key === "ArrowDown") this.moveTo({ row: this.firstRow, place: this.focus.place }, false);
      else this.headerInFocus()?.nameButton.focus();
    } else if (this.headRow.contains(event.target)) {
      if (!this.keyInHead(event)) return;
    } else if (!this.keyInBody(event)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };
  keyInHead(event) {
    const header = this.headerInFocus();
    const column = this.shown()[this.focus.place];
    if (!header || column === void 0) return false;
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const step = steps[event.key];
    if (step !== void 0 && event.altKey) header.step(step);
    else if (step !== void 0) this.moveInHead(this.focus.place + step);
    else if (event.key === "Home") this.moveInHead(0);
    else if (event.key === "End") this.moveInHead(this.shown().length - 1);
    else if (event.key === "ArrowDown") this.moveTo({ row: this.firstRow, place: this.focus.place }, false);
    else if (event.key === "Delete") this.hide(column);
    else if (event.key === "/") header.filter.focus();
    else if (event.key === "Enter" && event.shiftKey) this.sort(column, true);
    else return false;
    return true;
  }
  moveInHead(place) {
    this.focus.place = this.anchor.place = clamp(place, this.shown().length);
    this.draw();
    const header = this.headerInFocus();
    header?.nameButton.focus({ preventScroll: true });
    this.showPlace(header?.cell);
  }
  keyInBody(event) {
    const { row, place } = this.focus;
    const isWhole = event.ctrlKey || event.metaKey;
    const lastRow = this.blocks.total - 1;
    const lastPlace = this.shown().length - 1;
    const moves = {
      ArrowUp: { row: isWhole ? 0 : row - 1, place },
      ArrowDown: { row: isWhole ? lastRow : row + 1, place },
      ArrowLeft: { row, place: isWhole ? 0 : place - 1 },
      ArrowRight: { row, place: isWhole ? lastPlace : place + 1 },
      PageUp: { row: row - VISIBLE_ROWS, place },
      PageDown: { row: row + VISIBLE_ROWS, place },
      Home: { row: isWhole ? 0 : row, place: 0 },
      End: { row: isWhole ? lastRow : row, place: lastPlace }
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
  selectAll() {
    this.anchor = { row: 0, place: 0 };
    this.focus = { row: Math.max(this.blocks.total - 1, 0), place: this.shown().length - 1 };
    this.draw();
  }
  async copy() {
    const { rows, places } = this.bounds();
    const columns = this.shown().slice(places[0], places[1] + 1);
    const isOne = rows[0] === rows[1] && columns.length === 1;
    const count = isOne ? "Cell" : rows[0] === rows[1] ? "1 row" : `${(rows[1] - rows[0] + 1).toLocaleString("en")} rows`;
    await this.tell(async () => {
      const { order } = this.blocks;
      const asked = isOne ? this.kernel.ask("value", { order, row: rows[0], column: columns[0] }) : this.kernel.ask("copy", { order, rows, columns, header: columns.length > 1 });
      await copyText((await asked).answer.text);
      return `${count} copied.`;
    });
  }
  async expand() {
    const { row, place } = this.focus;
    const column = this.shown()[place];
    if (column === void 0 || this.blocks.total === 0) return;
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
            () => void this.tell(async () => {
              await copyText(answer.text);
              return "Value copied.";
            })
          ),
          makeButton("Close", () => this.collapse())
        ),
        make("pre", { tabindex: 0, "aria-label": title }, answer.text)
      );
      this.detail.hidden = false;
      return answer.is_cut ? "Only the beginning of this value is shown." : "";
    });
  }
  collapse() {
    this.detail.hidden = true;
    this.focusedCell()?.focus({ preventScroll: true });
  }
  /** Do something and say how it went. */
  async tell(action) {
    try {
      this.say(await action());
    } catch (error) {
      this.say(error.message);
    }
  }
  say(sentence) {
    this.message.textContent = sentence;
  }
};
function fittingWidth(column, texts) {
  const type = column.type.length + (column.unit ? column.unit.length + 3 : 0);
  const longest = Math.max(column.name.length + 4, type * 0.9, ...texts.map((text) => text?.length ?? 4));
  return Math.min(Math.max(longest * CHARACTER_WIDTH + 20, MIN_FITTING_WIDTH), MAX_FITTING_WIDTH);
}
function setStyle(element, name, pixels) {
  if (element.style[name] !== `${pixels}px`) element.style[name] = `${pixels}px`;
}
function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}
function activeElement(element) {
  const root = element.getRootNode();
  return root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
}
function clamp(value, length) {
  return Math.max(Math.min(value, length - 1), 0);
}
export {
  grid_default as default
};
