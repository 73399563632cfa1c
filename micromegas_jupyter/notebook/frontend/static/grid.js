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

// src/base/cells.ts
async function insertCell(element, source) {
  const options = { bubbles: true, cancelable: true, composed: true, detail: { source } };
  if (!element.dispatchEvent(new CustomEvent("micromegas:new-cell", options))) return true;
  await copyText(source);
  return false;
}
var TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/i;
async function openTrace(element, traceId) {
  const isInserted = await insertCell(element, `%micromegas_trace ${traceId}`);
  return isInserted ? "Written into a new cell." : "Copied. Paste it into a new cell.";
}
function suppressShortcuts(root) {
  root.addEventListener(
    "focusin",
    (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true")
  );
  root.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    if (root.parentElement?.dispatchEvent(new KeyboardEvent(event.type, event)) !== false) return;
    event.preventDefault();
    event.stopPropagation();
  });
}

// src/base/kernel.ts
var DEADLINE_MILLISECONDS = 12e4;
var Kernel = class {
  constructor(model) {
    this.model = model;
    model.on("msg:custom", this.receive);
  }
  model;
  // Each view of a widget receives the replies to all views.
  next = Math.floor(Math.random() * 2 ** 40) * 1e3;
  waiting = /* @__PURE__ */ new Map();
  /** Send a request; rejects with a sentence to show if the kernel reports an error or does not respond. */
  async ask(op, details = {}) {
    const id = this.next++;
    const reply = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Error("The kernel does not respond. Run the cell again."));
      }, DEADLINE_MILLISECONDS);
      this.waiting.set(id, { resolve, reject, timer });
      try {
        this.model.send({ id, op, ...details });
      } catch {
        this.waiting.delete(id);
        clearTimeout(timer);
        reject(new Error("The kernel no longer has these rows. Run the cell again."));
      }
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
  /** The number of requests for another order: only the last one counts. */
  arranged = 0;
  /** Show the rows in another order; if the kernel rejects it, this rejects and the order stays unchanged. */
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
  /** Return a cell's text, or undefined while it is being fetched. */
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
  /** Note that a block is in use; returns false if it isn't there. */
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

// src/grid/csv.ts
function parseRows(text, parse) {
  const lines = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    lines.at(-1)?.push(quoted === void 0 ? plain ?? "" : quoted.replaceAll('""', '"'));
    if (end === "\n") lines.push([]);
    if (end === "") break;
  }
  const [head = [], ...rows] = lines;
  return rows.filter((row) => row.length === head.length).map((row) => Object.fromEntries(head.map((name, at) => [name, valueOf(row[at] ?? "", parse[name])])));
}
function valueOf(text, kind) {
  if (kind !== "number") return text;
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? null : number;
}
function columnsOf(encoding, row) {
  const known = Object.values(encoding).filter(({ field }) => field !== void 0 && field in row);
  const fields = ["x", "x2", "series", "y", "y2", "rows"].filter((field) => field in row);
  return fields.map((field) => {
    const found = known.find((each) => each.field === field);
    const isTime = [field, field.replace("2", "")].some(
      (name) => known.some((each) => each.field === name && each.type === "temporal")
    );
    const title = found?.title ?? (field.endsWith("2") ? "to" : field);
    return { field, title, text: (each) => textOf(each[field] ?? null, isTime) };
  });
}
function textOf(value, isTime) {
  if (typeof value !== "number") return value ?? "";
  if (!isTime) return value.toLocaleString("en", { maximumSignificantDigits: 12 });
  return new Date(value).toISOString().replace("T", " ").replace(/(\.000)?Z$/, "");
}

// src/grid/chart.ts
var LIBRARY = /* @__PURE__ */ Symbol.for("micromegas.vega");
var KINDS = ["line", "area", "bar", "hist", "heat", "point"];
var AGGREGATES = ["count", "sum", "mean", "min", "max", "p50", "p95", "p99", "p50,p95,p99"];
var BINS = ["10", "25", "50", "100", "200"];
var MAX_ROWS = 500;
var MIN_WIDTH = 200;
var MARGIN = 96;
var RESIZE_MILLISECONDS = 150;
var SLOW_MILLISECONDS = 200;
var PICTURE_MILLISECONDS = 800;
var MAX_PICTURE_BYTES = 6e4;
var THEME_ATTRIBUTES = ["class", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"];
function loadLibrary(kernel) {
  const page = globalThis;
  const load = async () => {
    const { buffers } = await kernel.ask("vega");
    const packed = new Blob(buffers).stream().pipeThrough(new DecompressionStream("gzip"));
    const url = URL.createObjectURL(new Blob([await new Response(packed).blob()], { type: "text/javascript" }));
    try {
      return await import(
        /* @vite-ignore */
        url
      );
    } finally {
      URL.revokeObjectURL(url);
    }
  };
  return page[LIBRARY] ??= load().catch((error) => {
    page[LIBRARY] = void 0;
    throw error;
  });
}
var ChartPanel = class {
  constructor(kernel, columns, options, actions) {
    this.kernel = kernel;
    this.columns = columns;
    this.options = options;
    this.actions = actions;
    const names = (kinds) => columns.flatMap(({ name, kind }, at) => kinds.includes(kind) ? [[String(at), name]] : []);
    const values = (texts) => texts.map((text) => [text, text]);
    this.selects = {
      kind: this.select("Kind", values(KINDS)),
      x: this.select("x", names(["time", "number", "text", "boolean"])),
      y: this.select("y", names(["number", "text"])),
      color: this.select("Color", names(["text", "number", "boolean"])),
      agg: this.select("Aggregate", values(AGGREGATES)),
      bins: this.select("Bins", values(BINS)),
      log: this.select("Log", values(["x", "y", "xy"]))
    };
    const labels = Object.values(this.selects).map((select) => make("label", {}, `${select.name} `, select));
    const { asCell } = actions;
    const write = asCell ? [makeButton("Chart as cell", () => asCell(this.options), { title: "Write %%sql --plot into a new cell" })] : [];
    this.root = make(
      "div",
      { class: "micromegas-chart", role: "group", "aria-label": "Chart", hidden: true },
      make("div", { class: "micromegas-chart-bar" }, ...labels, ...write),
      this.canvas,
      this.numbers,
      this.tip
    );
    this.numbers.addEventListener("toggle", () => this.showNumbers());
    this.observer.observe(this.root);
    this.themes.observe(document.body, { attributes: true, attributeFilter: THEME_ATTRIBUTES });
    this.scheme.addEventListener("change", this.schemeChanged);
  }
  kernel;
  columns;
  options;
  actions;
  root;
  canvas = make("div", { class: "micromegas-chart-canvas" });
  tip = make("div", { class: "micromegas-chart-tip", hidden: true });
  numbers = make("details", { class: "micromegas-chart-numbers" });
  selects;
  view;
  spec;
  rows = [];
  plot = 0;
  asked = 0;
  width = 0;
  /** The filters of the brush; they do not hide the chart's other rows. */
  brushed = {};
  /** The brush's selection. */
  covered;
  /** The other filters when the chart was drawn. */
  drawnOthers = "[]";
  pending;
  isSending = false;
  timer;
  pictureTimer;
  observer = new ResizeObserver(() => this.resized());
  themes = new MutationObserver(() => void this.restyle());
  scheme = matchMedia("(prefers-color-scheme: dark)");
  close() {
    clearTimeout(this.timer);
    clearTimeout(this.pictureTimer);
    this.observer.disconnect();
    this.themes.disconnect();
    this.scheme.removeEventListener("change", this.schemeChanged);
    this.view?.finalize();
  }
  /** Open or close the chart; returns whether it is open. */
  toggle() {
    this.root.hidden = !this.root.hidden;
    if (!this.root.hidden) void this.draw();
    return !this.root.hidden;
  }
  /** Draw the matching rows, unless only the chart's own brush has changed. */
  filtersChanged(filters) {
    const isOwn = Object.entries(this.brushed).every(([column, typed]) => (filters[Number(column)] ?? "") === typed);
    const others = Object.keys(filters).filter((column) => !(column in this.brushed));
    const isSame2 = isOwn && JSON.stringify(others.map((at) => filters[Number(at)])) === this.drawnOthers;
    if (!isOwn) this.brushed = {};
    if (!isSame2 && !this.root.hidden) void this.draw();
  }
  select(name, options) {
    const select = make("select", { name }, make("option", { value: "" }, "auto"));
    select.append(...options.map(([value, text]) => make("option", { value }, text)));
    select.addEventListener("change", () => this.changed());
    return select;
  }
  changed() {
    const value = (key) => this.selects[key].value;
    const column = (key) => {
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
      log: value("log") || null
    };
    void this.draw();
  }
  resized() {
    const width = this.root.clientWidth;
    if (this.root.hidden || Math.abs(width - this.width) < 8) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.draw(), this.view ? RESIZE_MILLISECONDS : 0);
  }
  /** Draw again; only the last of several requests counts. */
  async draw() {
    const width = this.root.clientWidth;
    if (width < MIN_WIDTH) return;
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
        loadLibrary(this.kernel)
      ]);
      if (number !== this.asked) return;
      this.plot = answer.plot;
      this.showChosen(answer.chosen);
      this.rows = answer.spec.vconcat.map(({ data }) => parseRows(String(data.values), data.format?.parse ?? {}));
      this.spec = {
        ...answer.spec,
        // Vega would create a function to parse the text, which a page may forbid.
        vconcat: answer.spec.vconcat.map((panel, at) => ({ ...panel, data: { values: this.rows[at] } }))
      };
      this.canvas.setAttribute("aria-label", answer.text);
      await this.render(library, number);
      this.showNumbers();
    } catch (error) {
      if (number !== this.asked) return;
      this.view?.finalize();
      this.view = this.spec = void 0;
      this.rows = [];
      this.canvas.replaceChildren(make("p", { class: "micromegas-chart-empty" }, error.message));
      this.showNumbers();
    } finally {
      clearTimeout(slow);
      if (number === this.asked) this.root.classList.remove("micromegas-chart-busy");
    }
  }
  /** Show the defaults that were used for missing options. */
  showChosen(chosen) {
    const name = (at) => this.columns[at]?.name ?? "";
    const texts = {
      kind: chosen.kind ?? "",
      x: (chosen.x ?? []).map(name).join(", "),
      y: (chosen.y ?? []).map(name).join(", ") || "rows",
      color: (chosen.color ?? []).map(name).join(", ") || "none",
      agg: (chosen.agg ?? []).join(",") || "each row",
      bins: "",
      log: "none"
    };
    for (const [key, select] of Object.entries(this.selects)) {
      const given = this.options[key];
      const list = Array.isArray(given) ? key === "agg" ? given.join(",") : String(given[0] ?? "") : String(given ?? "");
      if (list && ![...select.options].some((option) => option.value === list))
        select.append(make("option", { value: list }, list));
      select.value = list;
      const [auto] = select.options;
      if (auto) auto.textContent = texts[key] ? `auto: ${texts[key]}` : "auto";
    }
  }
  schemeChanged = () => void this.restyle();
  async restyle() {
    if (this.spec && !this.root.hidden) await this.render(await loadLibrary(this.kernel), this.asked);
  }
  async render(library, number) {
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
    this.canvas.style.minHeight = `${this.canvas.offsetHeight}px`;
    this.canvas.replaceChildren(place);
    await this.fill(view);
    this.canvas.style.minHeight = "";
    old?.finalize();
    this.view = view;
    for (const name of names) {
      const panel = Number(name.slice("brush_panel_".length)) - 1;
      view.addSignalListener(name, (_name, value) => this.brush(panel, value));
    }
    clearTimeout(this.pictureTimer);
    this.pictureTimer = setTimeout(() => void this.sendPicture(library, number), PICTURE_MILLISECONDS);
  }
  /** Keep a brush in place while something else changes. */
  withBrush(spec) {
    if (!this.covered || Object.keys(this.brushed).length === 0) return spec;
    const { panel, ranges } = this.covered;
    const isIt = (name) => name === `brush_panel_${panel + 1}`;
    const params = spec.params.map((param) => {
      if (!isIt(param.name)) return param;
      const value = param.select?.type === "point" ? [{ x: ranges.x?.[0] }] : ranges;
      return { ...param, value };
    });
    return { ...spec, params };
  }
  /** Fit the panels to the width that axes and legends leave. */
  async fill(view) {
    const drawn = this.canvas.querySelector("canvas")?.offsetWidth ?? 0;
    const missing = this.canvas.clientWidth - drawn - 4;
    for (const name of ["width", "childWidth"]) {
      const width = signalOf(view, name);
      if (drawn && missing && typeof width === "number" && width > 0) view.signal(name, Math.max(width + missing, 100));
    }
    await view.runAsync();
  }
  brush(panel, value) {
    const ranges = {};
    for (const axis of ["x", "y"]) {
      const ends = value[axis];
      if (Array.isArray(ends)) ranges[axis] = ends.map((end) => typeof end === "string" ? end : Number(end));
    }
    this.pending = { panel, ranges };
    if (!this.isSending) void this.sendBrush();
  }
  /** One request at a time while a brush moves, always for the latest position. */
  async sendBrush() {
    this.isSending = true;
    try {
      while (this.pending) {
        const { panel, ranges } = this.pending;
        this.covered = this.pending;
        this.pending = void 0;
        const { answer } = await this.kernel.ask("brush", { plot: this.plot, panel, ranges });
        const cleared = Object.fromEntries(Object.keys(this.brushed).map((column) => [column, ""]));
        const filters = { ...cleared, ...answer.filters };
        this.brushed = Object.fromEntries(Object.entries(answer.filters).filter(([, typed]) => typed));
        await this.actions.select(filters);
      }
    } catch (error) {
      this.actions.say(error.message);
    } finally {
      this.isSending = false;
    }
  }
  /** Text only: result values must not become part of the page as markup. */
  showTip = (_handler, event, _item, value) => {
    this.tip.hidden = typeof value !== "object" || value === null;
    if (this.tip.hidden) return;
    const lines = Object.entries(value);
    this.tip.replaceChildren(...lines.map(([name, text]) => make("div", {}, `${name}: `, make("b", {}, String(text)))));
    const frame = this.root.getBoundingClientRect();
    const left = event.clientX - frame.left + 14;
    const isLeft = left + this.tip.offsetWidth > frame.width;
    this.tip.style.left = `${isLeft ? Math.max(left - this.tip.offsetWidth - 28, 0) : left}px`;
    this.tip.style.top = `${event.clientY - frame.top + 12}px`;
  };
  /** Create the table of numbers when it is first shown. */
  showNumbers() {
    const summary = this.numbers.querySelector("summary") ?? make("summary", {}, "Numbers of the chart");
    this.numbers.hidden = !this.spec;
    const tables = this.numbers.open && this.spec ? this.spec.vconcat.map((panel, at) => this.table(panel, at)) : [];
    this.numbers.replaceChildren(summary, ...tables);
  }
  table(panel, at) {
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
          makeButton(first.textContent, () => this.brush(at, { x: ends }), { title: "Only these rows" })
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
  async sendPicture(library, number) {
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
};
function start({ vega, compile, expressionInterpreter }, spec, options) {
  const runtime = vega.parse(compile(spec).spec, null, { ast: true });
  return new vega.View(runtime, { renderer: "canvas", hover: true, expr: expressionInterpreter, ...options });
}
function signalOf(view, name) {
  try {
    return view.signal(name);
  } catch {
    return void 0;
  }
}
function themed(spec, root) {
  const { color, fontFamily, borderTopColor: line } = getComputedStyle(root);
  const config = spec.config;
  const texts = { labelColor: color, titleColor: color };
  const axis = { ...config.axis, ...texts, domainColor: line, tickColor: line, gridColor: line };
  const title = { ...config.title, color, subtitleColor: color };
  const legend = { ...config.legend, ...texts };
  const view = { stroke: line };
  return { ...spec, background: "transparent", config: { ...config, font: fontFamily, axis, title, legend, view } };
}

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
        if (this.isCanceled) return "Export canceled.";
        if (answer.size !== null && to === "folder") return `Saved in the notebook's folder: ${answer.name}`;
        if (answer.size !== null) return await this.download(id, answer.size, answer.name, answer.type);
        const rows = answer.rows.toLocaleString("en");
        this.show(`${rows} of ${answer.total.toLocaleString("en")} rows`, answer.rows / Math.max(answer.total, 1));
        await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
      }
    } finally {
      await this.kernel.ask(this.isCanceled ? "export_cancel" : "export_end", { export: id }).catch(() => void 0);
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
var MIN_WIDTH2 = 48;
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
  reachable = [];
  width = 0;
  timer;
  /** Show the distribution of the values: of all rows, overlaid with that of the matching rows. */
  showSpread({ distinct, min, max, ends, bars, matching, bins, top, hint }) {
    const focused = this.reachable.findIndex((element) => element === element.ownerDocument.activeElement);
    const parts = [];
    this.filter.placeholder = hint;
    this.reachable = [];
    if (bars.length) {
      const part = (bar) => matching.length ? `${count(matching[bar] ?? 0)} of ` : "";
      const labels = bars.map((all, bar) => `${bins[bar] ?? ""} to ${bins[bar + 1] ?? ""}: ${part(bar)}${count(all)}`);
      const name = `Distribution of ${this.column.name} from ${min ?? ""} to ${max ?? ""}`;
      const pick = (first, last) => this.actions.pickBars(this.index, [first, last]);
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
        title: `${text}: ${shown}. Click to show only these rows`
      });
      line.append(make("span", {}, text || "(empty)"), make("span", {}, count(part)));
      line.style.setProperty("--share", `${100 * part / Math.max(this.rows, 1)}%`);
      line.style.setProperty("--all", `${100 * all / Math.max(this.rows, 1)}%`);
      parts.push(line);
      this.reachable.push(line);
    });
    if (others > 0) parts.push(make("div", {}, `${count(others + 1)} more values`));
    this.facts.replaceChildren(...parts);
    this.reachable.forEach((element) => element.tabIndex = this.nameButton.tabIndex);
    this.reachable[focused]?.focus({ preventScroll: true });
  }
  /** Show a filter that a click created. */
  showFilter(typed) {
    if (this.filter.value.trim() !== typed) this.filter.value = typed;
    this.cell.classList.toggle("micromegas-grid-filtered", typed !== "");
  }
  /** Show the column's position in the sort order, from 0; -1 if it isn't sorted. */
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
  /** Note the width that the grid assigned to the column. */
  setWidth(width) {
    this.width = width;
  }
  /** Make the column wider or narrower by a step. */
  step(direction) {
    this.actions.resize(this.index, this.width + direction * STEP);
  }
  /** Make Tab reach only the header of the column with the focus. */
  setReachable(isReachable) {
    const tabIndex = isReachable ? 0 : -1;
    if (this.nameButton.tabIndex === tabIndex) return;
    for (const element of [this.nameButton, this.filter, ...this.reachable]) element.tabIndex = tabIndex;
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
    const start2 = this.width - down.clientX;
    const move = (event) => this.actions.resize(this.index, start2 + event.clientX);
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
function histogram(counts, matching, labels, label, pick) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length * BAR_WIDTH} ${BAR_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const most = Math.max(...counts, 1);
  const add = (bar, height2, name) => {
    const rect = document.createElementNS(SVG, "rect");
    const place = { class: name, x: bar * BAR_WIDTH, y: BAR_HEIGHT - height2, width: BAR_WIDTH - 0.6, height: height2 };
    for (const [key, value] of Object.entries(place)) rect.setAttribute(key, String(value));
    svg.append(rect);
    return rect;
  };
  const height = (rows) => rows === 0 ? 0 : Math.max(BAR_HEIGHT * rows / most, 1);
  counts.forEach((rows, bar) => add(bar, height(rows), matching.length ? "micromegas-grid-all" : ""));
  matching.forEach((rows, bar) => add(bar, height(rows), ""));
  const hits = counts.map((_, bar) => {
    const hit = add(bar, BAR_HEIGHT, "micromegas-grid-hit");
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
    "aria-valuemax": counts.length
  });
  root.append(svg);
  const last = counts.length - 1;
  let [first, end] = [0, 0];
  const choose = (from, to, isShown = true) => {
    [first, end] = [Math.min(Math.max(from, 0), last), Math.min(Math.max(to, 0), last)];
    root.setAttribute("aria-valuenow", String(end + 1));
    root.setAttribute("aria-valuetext", labels[end] ?? "");
    const [low, high] = [Math.min(first, end), Math.max(first, end)];
    hits.forEach((hit, bar) => hit.classList.toggle("micromegas-grid-picked", isShown && bar >= low && bar <= high));
  };
  const barAt = (event) => {
    const { left, width } = svg.getBoundingClientRect();
    return Math.floor((event.clientX - left) / Math.max(width, 1) * counts.length);
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
    if (event.altKey || step === void 0 && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    if (step === void 0) pick(first, end);
    else choose(event.shiftKey ? first : end + step, end + step);
  });
  return root;
}
function count(rows) {
  return rows.toLocaleString("en");
}
function share(part, whole) {
  const percent = 100 * part / Math.max(whole, 1);
  return percent < 0.1 ? "<0.1%" : `${percent.toFixed(percent < 10 ? 1 : 0)}%`;
}

// src/grid/menu.ts
function openMenu(root, { clientX, clientY, target }, items, onClose) {
  const buttons = items.map(
    ([label, action]) => makeButton(
      label,
      () => {
        close();
        action();
      },
      { role: "menuitem", tabindex: -1 }
    )
  );
  const menu = make("div", { class: "micromegas-grid-menu", role: "menu", "aria-label": "Actions" }, ...buttons);
  const close = () => {
    menu.remove();
    document.removeEventListener("pointerdown", closeOutside, true);
    onClose();
  };
  const closeOutside = (event) => {
    if (!event.composedPath().includes(menu)) close();
  };
  menu.addEventListener("keydown", (event) => {
    const at = buttons.findIndex((button) => button.matches(":focus"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    else if (to === void 0) return;
    else buttons.at(to % buttons.length)?.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  menu.addEventListener("contextmenu", (event) => event.preventDefault());
  root.append(menu);
  const frame = root.getBoundingClientRect();
  const cell = target.getBoundingClientRect();
  const [x, y] = clientX || clientY ? [clientX, clientY] : [cell.left + 8, cell.bottom];
  menu.style.left = `${Math.max(Math.min(x - frame.left, frame.width - menu.offsetWidth - 4), 0)}px`;
  menu.style.top = `${y - frame.top}px`;
  document.addEventListener("pointerdown", closeOutside, true);
  buttons[0]?.focus({ preventScroll: true });
}

// src/grid/grid.ts
var ROW_HEIGHT = 24;
var VISIBLE_ROWS = 15;
var MAX_COMPACT_ROWS = 3;
var MAX_HEIGHT = 8e6;
var NUMBER_WIDTH = 24;
var CHARACTER_WIDTH = 8.2;
var MIN_FITTING_WIDTH = 112;
var MAX_FITTING_WIDTH = 340;
var BAR_GAP = 8;
var MIN_MESSAGE_WIDTH = 120;
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
  detail = make("div", {
    class: "micromegas-grid-detail",
    role: "group",
    "aria-label": "Whole value",
    hidden: true
  });
  chart;
  chartButton = makeButton("Chart", () => this.toggleChart(), { "aria-expanded": "false" });
  clear = makeButton("Clear filters", () => void this.select({}, true), { hidden: true });
  hasSource;
  bar;
  /** A few values need no histograms and no filters. */
  isCompact;
  tableWidth = 0;
  /** The number of requests for distributions: only the last one counts. */
  spreads = 0;
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
    this.hasSource = model.get("has_source");
    const plot = model.get("plot");
    this.isCompact = this.rowCount <= MAX_COMPACT_ROWS && !plot;
    this.bar = this.buildBar();
    this.chart = new ChartPanel(this.kernel, this.columns, plot ?? {}, {
      select: (filters) => this.select(filters),
      order: () => this.order,
      asCell: this.hasSource ? (chart) => void this.asCell(chart) : void 0,
      say: (sentence) => this.say(sentence)
    });
    this.fittingWidths = this.columns.map((column, index) => fittingWidth(column, first[index] ?? []));
    this.widths = [...this.fittingWidths];
    this.numberWidth = NUMBER_WIDTH + Math.max(this.rowCount.toLocaleString("en").length, "row".length) * CHARACTER_WIDTH;
    this.headers = this.columns.map(
      (column, index) => new Header(column, index, this.rowCount, {
        sort: this.sort,
        filter: this.filter,
        resize: this.resize,
        hide: this.hide,
        pickBars: (column2, bars) => void this.pick({ what: "bar", column: column2, bars }),
        pickTop: (column2, place) => void this.pick({ what: "top", column: column2, place })
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
      "div",
      // A page may contain several results, so their parts are groups: a landmark needs a unique label.
      { class: "micromegas-grid", role: "group", "aria-label": "Result" },
      this.bar,
      this.chart.root,
      this.scroller,
      this.detail
    );
    const note = model.get("note");
    if (note) this.root.append(make("p", { class: "micromegas-grid-note" }, note));
    suppressShortcuts(this.root);
    this.scroller.addEventListener("scroll", this.scrolled, { passive: true });
    this.table.addEventListener("keydown", this.keyPressed);
    this.body.addEventListener("pointerdown", this.pointerPressed);
    this.body.addEventListener("pointerover", this.pointerMoved);
    this.body.addEventListener("pointerup", () => this.isSelecting = false);
    this.body.addEventListener("dblclick", () => void this.expand());
    this.body.addEventListener("contextmenu", this.showMenu);
    this.headRow.addEventListener("focusin", this.headFocused);
    this.observer.observe(this.headRow);
    this.observer.observe(this.scroller);
    this.layOut();
    this.root.classList.toggle("micromegas-grid-compact", this.isCompact);
    if (!this.isCompact) void this.loadSpreads();
    if (plot) this.toggleChart();
  }
  close() {
    this.chart.close();
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
      make("div", { class: "micromegas-grid-said" }, this.status, this.message, this.clear, this.showHidden),
      this.chartButton,
      ...this.hasSource ? [
        makeButton("Copy as SQL", () => void this.asCell(null), {
          title: "Write the statement with the filters and the order into a new cell"
        })
      ] : [],
      makeButton("Copy", () => void this.copy(), { title: "Copy the selected cells (Ctrl+C)" }),
      exports.root
    );
  }
  toggleChart() {
    this.chartButton.setAttribute("aria-expanded", String(this.chart.toggle()));
    this.placeBar();
  }
  /** Show the buttons next to a small table that leaves room for them, where they need no line above it. */
  placeBar() {
    const [said, ...buttons] = [...this.bar.children];
    const needed = buttons.reduce((sum, button) => sum + button.offsetWidth + BAR_GAP, MIN_MESSAGE_WIDTH);
    const room = this.root.clientWidth - this.tableWidth;
    const isBeside = this.isCompact && said !== void 0 && this.chart.root.hidden && room >= needed;
    this.root.classList.toggle("micromegas-grid-beside", isBeside);
    this.bar.style.left = isBeside ? `${this.tableWidth + 2 * BAR_GAP}px` : "";
  }
  /** The rows come first, then the columns' distributions one by one, and after a filter all together. */
  async loadSpreads() {
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
        return;
      }
    }
  }
  /** Apply filters as if they were typed; an empty one clears. */
  async select(filters, replaces = false) {
    const all = { ...replaces ? {} : this.order.filters, ...filters };
    const kept = Object.fromEntries(Object.entries(all).filter(([, typed]) => typed !== ""));
    if (isSame(kept, this.order.filters)) return;
    await this.arrange({ ...this.order, filters: kept });
  }
  async pick(details) {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("pick", { ...details, order: this.blocks.order });
      await this.select(answer.filters, details.what === "around");
      return this.message.textContent;
    });
  }
  /** Write the selection, or the chart, to a new cell, or copy it if there are no cells. */
  async asCell(chart) {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("cell", { order: this.blocks.order, chart, hidden: [...this.hidden] });
      const isInserted = await insertCell(this.root, answer.source);
      return isInserted ? "Written into a new cell." : "Copied. Paste it into a new cell.";
    });
  }
  showMenu = (event) => {
    const found = this.findPosition(event.target);
    const column = found && this.shown()[found.place];
    if (!found || column === void 0) return;
    event.preventDefault();
    event.stopPropagation();
    if (!this.isSelected(found.row, found.place)) this.moveTo(found, false);
    const { row } = found;
    const { name, kind } = this.columns[column] ?? { name: "", kind: "other" };
    const text = this.blocks.text(row, column) ?? "null";
    const value = `${name} = ${text.length > 28 ? `${text.slice(0, 27)}…` : text}`;
    const isTime = (each) => each.kind === "time" && /^(timestamp|date)/.test(each.arrow_type);
    const time = kind === "time" ? column : this.columns.findIndex(isTime);
    const items = [
      [`Only ${value}`, () => void this.pick({ what: "only", column, row })],
      [`Exclude ${value}`, () => void this.pick({ what: "exclude", column, row })]
    ];
    if (time >= 0)
      items.push([
        `±1 minute around this ${this.columns[time]?.name ?? ""}`,
        () => void this.pick({ what: "around", column: time, row })
      ]);
    const traceId = this.traceIdOf(row);
    if (traceId) items.push(["Open its trace", () => void this.tell(() => openTrace(this.root, traceId))]);
    items.push(["Copy", () => void this.copy()], ["Show whole value", () => void this.expand()]);
    openMenu(this.root, event, items, () => this.focusedCell()?.focus({ preventScroll: true }));
  };
  traceIdOf(row) {
    const column = this.columns.findIndex(({ name }) => /(^|[._])trace_?id$/i.test(name));
    const text = column < 0 ? "" : (this.blocks.text(row, column) ?? "").replace(/^0x/, "").replaceAll("-", "");
    return TRACE_ID.test(text) ? text.toLowerCase() : void 0;
  }
  shown() {
    return this.columns.map((_, column) => column).filter((column) => !this.hidden.has(column));
  }
  layOut() {
    const shown = this.shown();
    const numbers = make("col");
    numbers.style.width = `${this.numberWidth}px`;
    const widths = shown.map((column) => {
      const width = this.widths[column] ?? MIN_WIDTH2;
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
    this.placeBar();
    const { total } = this.blocks;
    const visible = this.visibleRows();
    const shown = this.shown();
    const inSight = this.placesInSight(shown);
    this.firstRow = clamp(this.firstRow, total - visible + 1);
    this.table.setAttribute("aria-rowcount", String(total + 1));
    const headHeight = this.table.tHead?.offsetHeight ?? 0;
    const bar = this.scroller.offsetHeight - this.scroller.clientHeight;
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
    const { filters } = this.blocks.order;
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
    this.headers.forEach((each, column) => each.showFilter(order.filters[column] ?? ""));
    this.clear.hidden = Object.keys(order.filters).length === 0;
    this.focus.row = this.anchor.row = 0;
    this.scrollTo(0);
    if (isSame(filters, order.filters)) return;
    this.chart.filtersChanged(order.filters);
    await this.loadSpreads();
  }
  /** Set a column's width in pixels; 0 means automatic. */
  resize = (column, width) => {
    const fitting = this.fittingWidths[column] ?? MIN_FITTING_WIDTH;
    this.widths[column] = width === 0 ? fitting : Math.min(Math.max(width, MIN_WIDTH2), MAX_WIDTH);
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
  /** Scroll sideways until a cell is next to the row numbers, which cover the left edge. */
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
    const count2 = isOne ? "Cell" : rows[0] === rows[1] ? "1 row" : `${(rows[1] - rows[0] + 1).toLocaleString("en")} rows`;
    await this.tell(async () => {
      const { order } = this.blocks;
      const asked = isOne ? this.kernel.ask("value", { order, row: rows[0], column: columns[0] }) : this.kernel.ask("copy", { order, rows, columns, header: columns.length > 1 });
      await copyText((await asked).answer.text);
      return `${count2} copied.`;
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
  /** Run an action and report the outcome. */
  async tell(action) {
    try {
      this.say(await action());
    } catch (error) {
      this.say(error.message);
    }
  }
  say(sentence) {
    this.message.textContent = this.message.title = sentence;
  }
};
function fittingWidth(column, texts) {
  const type = column.type.length + (column.unit ? column.unit.length + 3 : 0);
  const longest = Math.max(column.name.length + 4, type * 0.9, ...texts.map((text) => text?.length ?? 4));
  return Math.min(Math.max(longest * CHARACTER_WIDTH + 20, MIN_FITTING_WIDTH), MAX_FITTING_WIDTH);
}
function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
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
