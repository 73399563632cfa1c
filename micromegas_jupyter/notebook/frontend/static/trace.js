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

// src/base/theme.ts
var ATTRIBUTES = ["class", "data-jp-theme-light", "data-jp-theme-name", "data-theme", "data-vscode-theme-kind"];
function watchTheme(draw) {
  const observer = new MutationObserver(() => requestAnimationFrame(() => setTimeout(draw)));
  observer.observe(document.body, { attributeFilter: ATTRIBUTES });
  return () => observer.disconnect();
}

// src/trace/details.ts
function drawDetails({ name, sections }, openTrace2) {
  const nodes = [make("h3", {}, name)];
  for (const [title, items] of sections) {
    if (title) nodes.push(make("h4", {}, title));
    for (const { text = "", is_severe: isSevere, trace_id: id, pairs = [] } of items) {
      const list = pairs.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]);
      nodes.push(make("div", { class: isSevere ? "severe" : "" }, text, make("dl", {}, ...list)));
      if (id) nodes.push(makeButton(`Trace ${id.slice(0, 8)}…`, () => openTrace2(id), { title: "Insert a cell" }));
    }
  }
  return nodes;
}

// src/trace/layout.ts
var ERROR = 1;
var CRITICAL = 2;
var ORPHAN = 4;
function arrangeRows(spans) {
  const { count, start, duration, parent, size } = spans;
  const low = start.slice();
  const high = start.map((each, span) => each + duration[span]);
  const height = new Int32Array(count);
  const offset = new Int32Array(count);
  const arrangeSiblings = (first, last) => {
    const siblings = [];
    for (let span = first; span < last; span += size[span]) siblings.push(span);
    siblings.sort((one, other) => low[one] - low[other]);
    const ending = [...siblings].sort((one, other) => high[one] - high[other]);
    const [free, heights, lanes] = [[], [], /* @__PURE__ */ new Map()];
    let ended = 0;
    for (const span of siblings) {
      for (; high[ending[ended]] <= low[span] && lanes.has(ending[ended]); ended++)
        free.push(lanes.get(ending[ended]));
      const lane = free.pop() ?? heights.push(0) - 1;
      lanes.set(span, lane);
      heights[lane] = Math.max(heights[lane], height[span]);
    }
    let total = 0;
    const tops = heights.map((each) => (total += each) - each);
    for (const [span, lane] of lanes) offset[span] = tops[lane];
    return total;
  };
  for (let span = count - 1; span >= 0; span--) {
    const above = parent[span];
    height[span] = 1 + (size[span] > 1 ? arrangeSiblings(span + 1, span + size[span]) : 0);
    if (above < 0) continue;
    low[above] = Math.min(low[above], low[span]);
    high[above] = Math.max(high[above], high[span]);
  }
  const rows = arrangeSiblings(0, count);
  const row = offset;
  for (let span = 0; span < count; span++) if (parent[span] >= 0) row[span] += row[parent[span]] + 1;
  return { count: rows, row, ...groupByRow(start, row, rows) };
}
function groupByRow(start, row, rows) {
  const first = new Int32Array(rows + 1);
  for (const each of row) first[each + 1]++;
  for (let each = 0; each < rows; each++) first[each + 1] += first[each];
  const next = first.slice();
  const order = new Int32Array(row.length);
  row.forEach((each, span) => order[next[each]++] = span);
  for (let each = 0; each < rows; each++) {
    order.subarray(first[each], first[each + 1]).sort((one, other) => start[one] - start[other] || one - other);
  }
  return { order, first };
}
function findEndingAfter(spans, order, from, to, time) {
  while (from < to) {
    const middle = from + to >> 1;
    const span = order[middle];
    if (spans.start[span] + spans.duration[span] > time) to = middle;
    else from = middle + 1;
  }
  return from;
}
var UNITS = [
  ["s", 9],
  ["ms", 6],
  ["µs", 3]
];
function exactTime(nanoseconds) {
  const whole = Math.round(Math.abs(nanoseconds));
  const [name, digits] = UNITS.find(([, each]) => whole >= 10 ** each) ?? ["ns", 0];
  const text = String(whole).padStart(digits + 1, "0");
  const fraction = digits ? text.slice(-digits).replace(/0+$/, "") : "";
  return `${nanoseconds < 0 ? "-" : ""}${text.slice(0, text.length - digits)}${fraction && "."}${fraction} ${name}`;
}
function shortTime(nanoseconds) {
  const [name, digits] = UNITS.find(([, each]) => Math.abs(nanoseconds) >= 10 ** each) ?? ["ns", 0];
  return `${Number((nanoseconds / 10 ** digits).toPrecision(4))} ${name}`;
}

// src/trace/painter.ts
var ROW = 18;
var NAMES = 260;
var AXIS = 20;
var MAP = 36;
var TOP = MAP + AXIS;
var MAX_INDENTS = 14;
var INDENT = 10;
var LETTER = 5.8;
var MIN_TEXT = 30;
var LIGHT = { selected: "#e2ebf7", error: "#b71c1c", critical: "#9a4d00", isDark: false };
var DARK = { selected: "#333b47", error: "#ff6b6b", critical: "#ffb74d", isDark: true };
var Painter = class {
  canvas;
  width = 0;
  height = 0;
  map;
  colors = { ...LIGHT, ink: "", paper: "" };
  constructor(attributes) {
    this.canvas = make("canvas", attributes);
  }
  /** Adapt to a size or theme. */
  resize(width, height) {
    const style = getComputedStyle(this.canvas);
    const [ink, paper] = [style.getPropertyValue("--ink").trim(), style.getPropertyValue("--paper").trim()];
    this.width = width;
    this.height = height;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    this.canvas.style.height = `${height}px`;
    this.map = void 0;
    this.colors = { ...isLight(style.color) ? DARK : LIGHT, ink, paper };
  }
  left(scene) {
    return scene.rows ? 0 : NAMES;
  }
  indent(scene, span) {
    return 4 + Math.min(scene.depth[span], MAX_INDENTS) * INDENT;
  }
  paint(scene) {
    const pen = this.canvas.getContext("2d");
    if (!pen || !this.width) return;
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.globalAlpha = 1;
    pen.fillStyle = this.colors.paper;
    pen.fillRect(0, 0, this.width, this.height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.paintMap(pen, scene);
    this.paintAxis(pen, scene);
    pen.save();
    pen.beginPath();
    pen.rect(0, TOP, this.width, this.height - TOP);
    pen.clip();
    if (scene.rows) this.paintFlame(pen, scene, scene.rows);
    else this.paintWaterfall(pen, scene);
    pen.restore();
  }
  /** Paint the minimap of all spans; expensive, so after the first frame. */
  prepareMap(scene) {
    if (this.map || !this.width) return false;
    const { spans, rows, depth, total } = scene;
    this.map = make("canvas", { width: Math.ceil(this.width), height: MAP });
    const pen = this.map.getContext("2d");
    if (!pen) return false;
    const scale = this.width / total;
    const lines = rows ? rows.count : depth.reduce((deepest, each) => Math.max(deepest, each), 0) + 1;
    const height = Math.max((MAP - 4) / lines, 0.5);
    const painted = new Uint8Array(this.map.width * MAP);
    for (let span = 0; span < spans.count; span++) {
      const x = spans.start[span] * scale;
      const y = (rows ? rows.row[span] : depth[span]) * height;
      const width = Math.max(spans.duration[span] * scale, 1);
      const isError = (spans.flags[span] & ERROR) !== 0;
      const pixel = Math.floor(x) + Math.floor(y) * this.map.width;
      if (width <= 1 && !isError && painted[pixel]) continue;
      painted[pixel] = 1;
      pen.fillStyle = isError ? this.colors.error : this.color(scene, span);
      pen.fillRect(x, isError ? MAP - 4 : y, width, isError ? 4 : Math.max(height, 1));
    }
    return true;
  }
  /** Return the span at a position of the canvas. */
  find(scene, x, y) {
    const line = Math.floor((y - TOP + scene.scroll) / ROW);
    if (line < 0 || y < TOP) return void 0;
    if (!scene.rows) return scene.visible[line];
    const { order, first, count } = scene.rows;
    if (line >= count) return void 0;
    const pixel = (scene.to - scene.from) / this.width;
    const time = scene.from + x * pixel;
    const index = findEndingAfter(scene.spans, order, first[line], first[line + 1], time - pixel);
    const span = index < first[line + 1] ? order[index] : -1;
    return span >= 0 && scene.spans.start[span] <= time + pixel ? span : void 0;
  }
  paintWaterfall(pen, scene) {
    const { visible, spans, names, closed, scroll } = scene;
    const last = Math.min(visible.length, Math.ceil((scroll + this.height) / ROW));
    for (let line = Math.floor(scroll / ROW); line < last; line++) {
      const span = visible[line];
      const y = TOP + line * ROW - scroll;
      const indent = this.indent(scene, span);
      if (span === scene.selected) {
        pen.fillStyle = this.colors.selected;
        pen.fillRect(0, y, NAMES, ROW);
      }
      pen.fillStyle = this.colors.ink;
      const sign = closed.has(span) ? "▸ " : spans.size[span] > 1 ? "▾ " : "  ";
      pen.fillText(fit(sign + names[spans.name[span]], NAMES - indent - 6), indent, y + ROW / 2);
      this.paintSpan(pen, scene, span, y);
    }
  }
  paintFlame(pen, scene, rows) {
    const { spans, from, to, scroll } = scene;
    const pixel = (to - from) / this.width;
    const lastRow = Math.min(rows.count, Math.ceil((scroll + this.height) / ROW));
    for (let row = Math.floor(scroll / ROW); row < lastRow; row++) {
      const last = rows.first[row + 1];
      let next = findEndingAfter(spans, rows.order, rows.first[row], last, from);
      while (next < last) {
        const span = rows.order[next];
        const [start, duration] = [spans.start[span], spans.duration[span]];
        if (start > to) break;
        this.paintSpan(pen, scene, span, TOP + row * ROW - scroll);
        const end = from + (Math.floor((start + duration - from) / pixel) + 1) * pixel;
        next = duration < pixel ? findEndingAfter(spans, rows.order, next + 1, last, end) : next + 1;
      }
    }
    this.paintPath(pen, scene, rows);
  }
  paintSpan(pen, scene, span, y) {
    const { spans, names, matches } = scene;
    const left = this.left(scene);
    const scale = (this.width - left) / (scene.to - scene.from);
    const begin = left + (spans.start[span] - scene.from) * scale;
    const end = begin + spans.duration[span] * scale;
    if (begin > this.width || end < left) return;
    const x = Math.max(left, begin);
    const width = Math.max(1, Math.min(this.width, end) - x);
    const flags = spans.flags[span];
    pen.globalAlpha = matches.size && !matches.has(span) ? 0.25 : 1;
    pen.fillStyle = this.color(scene, span);
    pen.fillRect(x, y + 1, width, ROW - 2);
    if (flags & ERROR) {
      pen.fillStyle = this.colors.error;
      pen.fillRect(x, y + ROW - 4, width, 3);
    }
    if (flags & CRITICAL && !scene.rows) {
      pen.fillStyle = this.colors.critical;
      pen.fillRect(x, y + 1, width, 2);
    }
    pen.globalAlpha = 1;
    if (span === scene.selected) {
      pen.strokeStyle = this.colors.ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(x + 0.5, y + 1.5, Math.max(width - 1, 1), ROW - 3);
    }
    if (width < MIN_TEXT) return;
    pen.fillStyle = this.colors.ink;
    const name = scene.rows ? `${names[spans.name[span]]} ` : "";
    const text = `${flags & ERROR ? "✗ " : ""}${name}${shortTime(spans.duration[span])}`;
    pen.fillText(fit(text, width - 6), x + 3, y + ROW / 2);
  }
  paintPath(pen, scene, rows) {
    const { span, begin, end } = scene.path;
    const scale = this.width / (scene.to - scene.from);
    const painted = /* @__PURE__ */ new Set();
    pen.fillStyle = this.colors.critical;
    for (let each = 0; each < span.length; each++) {
      if (end[each] < scene.from || begin[each] > scene.to) continue;
      const x = (begin[each] - scene.from) * scale;
      const width = (end[each] - begin[each]) * scale;
      const row = rows.row[span[each]];
      const pixel = row * 1e5 + Math.floor(x);
      if (width < 1 && painted.has(pixel)) continue;
      painted.add(pixel);
      pen.fillRect(x, TOP + row * ROW - scene.scroll + 1, Math.max(width, 1), 2);
    }
  }
  paintAxis(pen, scene) {
    const left = this.left(scene);
    const shown = scene.to - scene.from;
    const rough = shown / Math.max((this.width - left) / 110, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max([1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? rough, 1);
    pen.fillStyle = this.colors.ink;
    for (let time = Math.ceil(scene.from / step) * step; time <= scene.to; time += step) {
      const x = left + (time - scene.from) / shown * (this.width - left);
      pen.globalAlpha = 0.25;
      pen.fillRect(Math.round(x), MAP, 1, this.height);
      pen.globalAlpha = 1;
      pen.fillText(exactTime(time), x + 3, MAP + AXIS / 2);
    }
  }
  paintMap(pen, scene) {
    if (this.map) pen.drawImage(this.map, 0, 0, this.width, MAP);
    const [x, end] = [scene.from, scene.to].map((time) => time / scene.total * this.width);
    pen.globalAlpha = 0.35;
    pen.fillStyle = this.colors.isDark ? "#000" : "#888";
    pen.fillRect(0, 0, x, MAP);
    pen.fillRect(end, 0, this.width - end, MAP);
    pen.globalAlpha = 1;
    pen.lineWidth = 1;
    pen.strokeStyle = this.colors.ink;
    pen.strokeRect(x + 0.5, 0.5, Math.max(end - x - 1, 2), MAP - 1);
  }
  color({ spans, changes }, span) {
    const { isDark } = this.colors;
    if (changes) {
      const change = changes[span];
      const saturation = Math.round(Math.abs(change) * 80);
      return `hsl(${change > 0 ? 5 : 215} ${saturation}% ${isDark ? 34 : 82}%)`;
    }
    const hue = Math.round((210 + spans.service[span] * 137.5) % 360);
    return `hsl(${hue} ${isDark ? "35% 34%" : "55% 82%"})`;
  }
};
function fit(text, width) {
  const letters = Math.floor(width / LETTER);
  if (text.length <= letters) return text;
  return letters > 2 ? `${text.slice(0, letters - 1)}…` : "";
}
function isLight(color) {
  const [red = 0, green = 0, blue = 0] = (/[\d., ]+/.exec(color)?.[0] ?? "").split(",").map(Number);
  return red * 0.3 + green * 0.6 + blue * 0.1 > 128;
}

// src/trace/trace.ts
var TITLES = { waterfall: "Waterfall", flame: "Flame graph", table: "Table" };
var MAX_HEIGHT = 380;
var MIN_LINES = 4;
var PAGE = 100;
var MIN_NANOSECONDS = 20;
var DETAILS_DELAY = 120;
var MIN_DRAG = 4;
var HELP = "Arrow keys select spans, W and S zoom, A and D move, 0 shows all, Enter zooms to the span, E selects the next error, P the next span on the critical path, N the next match, slash searches.";
var trace_default = {
  render({ model, el }) {
    const view = new TraceView(model);
    el.append(view.root);
    return () => view.close();
  }
};
var TraceView = class {
  root;
  kernel;
  isTrace;
  painter = new Painter({ tabindex: 0, role: "application", "aria-label": `Spans. ${HELP}` });
  tip = make("div", { class: "micromegas-trace-tip", "aria-hidden": "true", hidden: true });
  live = make("div", { class: "micromegas-trace-live", role: "status" });
  message = make("div", { class: "micromegas-trace-message", role: "alert" });
  found = make("span", { role: "status" });
  search = make("input", {
    type: "search",
    placeholder: "Search spans",
    "aria-label": "Search spans"
  });
  stage;
  details = group("micromegas-trace-details", "Selected span");
  table = group("micromegas-trace-table", "Spans as a table");
  buttons = /* @__PURE__ */ new Map();
  resizes = new ResizeObserver(() => this.resize());
  unwatchTheme = watchTheme(() => this.resize());
  scene;
  rows;
  services = [];
  /** For merged paths: errors, spans, and totals, and the latter two for the traces to compare with. */
  counts = [];
  closed = /* @__PURE__ */ new Set();
  view;
  page = 0;
  frame = 0;
  timer = 0;
  drag;
  constructor(model) {
    this.kernel = new Kernel(model);
    this.isTrace = model.get("mode") === "trace";
    this.view = this.isTrace ? "waterfall" : "flame";
    this.stage = make("div", { class: "micromegas-trace-stage" }, this.painter.canvas, this.tip);
    const views = this.isTrace ? ["waterfall", "flame", "table"] : ["flame", "table"];
    for (const view of views)
      this.buttons.set(
        view,
        makeButton(TITLES[view], () => this.show(view))
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
  close() {
    this.kernel.close();
    this.resizes.disconnect();
    this.unwatchTheme();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
  }
  async tell(work) {
    try {
      this.message.textContent = "";
      await work();
    } catch (error) {
      this.message.textContent = `✗ ${error.message}`;
    }
  }
  async load() {
    const { answer, buffers } = await this.kernel.ask("spans");
    const at = (index) => {
      const { buffer, byteOffset, byteLength } = buffers[index] ?? new DataView(new ArrayBuffer(0));
      return buffer.slice(byteOffset, byteOffset + byteLength);
    };
    const doubles = (index) => new Float64Array(at(index));
    const [start, duration, self, depth] = [doubles(0), doubles(1), doubles(2), new Uint32Array(at(8))];
    const [parent, size, flags] = [new Int32Array(at(3)), new Int32Array(at(4)), new Uint8Array(at(7))];
    const [name, service] = [new Uint32Array(at(5)), new Uint32Array(at(6))];
    const spans = { count: start.length, start, duration, self, parent, size, name, service, flags };
    const path = { span: new Int32Array(at(9)), begin: doubles(10), end: doubles(11) };
    this.services = answer.services;
    this.counts = buffers.slice(12).map((_, index) => doubles(index + 12));
    const [, , now, , before] = this.counts;
    const changes = before && now?.map((each, span) => (each - before[span]) / Math.max(each, before[span], 1));
    const { total } = answer;
    const matches = /* @__PURE__ */ new Set();
    this.scene = {
      ...{ spans, names: answer.names, depth, path, matches, total, changes },
      ...{ rows: void 0, visible: this.listVisible(spans), closed: this.closed },
      ...{ selected: 0, from: 0, to: total, scroll: 0 }
    };
    this.show(this.view);
    this.painter.paint(this.scene);
    performance.mark("micromegas-trace-painted");
    this.select(0);
  }
  listVisible(spans) {
    const visible = new Int32Array(spans.count);
    let count = 0;
    for (let span = 0; span < spans.count; span += this.closed.has(span) ? spans.size[span] : 1)
      visible[count++] = span;
    return visible.subarray(0, count);
  }
  // Display
  show(view) {
    this.view = view;
    this.pressView();
    this.stage.hidden = view === "table";
    this.table.hidden = view !== "table";
    if (!this.scene) return;
    this.scene.scroll = 0;
    this.scene.rows = view === "flame" ? this.rows ??= arrangeRows(this.scene.spans) : void 0;
    if (view === "table") this.fillTable();
    else this.resize();
    this.reveal();
  }
  pressView() {
    for (const [view, button] of this.buttons) button.setAttribute("aria-pressed", String(view === this.view));
  }
  get lines() {
    return this.scene?.rows?.count ?? this.scene?.visible.length ?? 0;
  }
  resize() {
    const width = this.stage.clientWidth;
    if (!width || !this.scene) return;
    this.painter.resize(width, Math.min(MAX_HEIGHT, TOP + Math.max(this.lines, MIN_LINES) * ROW + 2));
    this.request();
    requestAnimationFrame(() => setTimeout(() => this.scene && this.painter.prepareMap(this.scene) && this.request()));
  }
  request() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.scene || this.view === "table") return;
      this.scene.scroll = Math.max(0, Math.min(this.scene.scroll, this.maxScroll));
      this.painter.paint(this.scene);
    });
  }
  get maxScroll() {
    return this.lines * ROW - (this.painter.height - TOP);
  }
  describe(span) {
    const { spans, names } = this.scene;
    const flags = spans.flags[span];
    const [errors, count, total, countBefore, totalBefore] = this.counts.map((each) => each[span]);
    const name = `${names[spans.name[span]]} · ${this.services[spans.service[span]]}`;
    const self = `self ${exactTime(spans.self[span])}`;
    if (count === void 0 || total === void 0) {
      const marks = this.marks(flags).map((each) => ` · ${each}`);
      return `${name} · ${exactTime(spans.duration[span])} (${self})${marks.join("")}`;
    }
    const facts = `${exactTime(total)} (${self}) · ${count} spans · ${errors} errors`;
    if (totalBefore === void 0) return `${name} · ${facts}`;
    return `${name} · ${facts} · per trace; before: ${exactTime(totalBefore)} · ${countBefore} spans`;
  }
  marks(flags) {
    const marks = [
      [ERROR, "✗ error"],
      [CRITICAL, "critical path"],
      [ORPHAN, "parent missing"]
    ];
    return marks.filter(([flag]) => flags & flag).map(([, text]) => text);
  }
  /** The spans, or those that match a search, one page at a time. */
  fillTable() {
    const { spans, names, depth, matches, selected } = this.scene;
    const list = matches.size ? [...matches].sort((one, other) => one - other) : void 0;
    const total = list?.length ?? spans.count;
    const pages = Math.ceil(total / PAGE);
    const last = Math.min(total, (this.page + 1) * PAGE);
    const rows = [];
    for (let index = this.page * PAGE; index < last; index++) {
      const span = list?.[index] ?? index;
      const name = makeButton(names[spans.name[span]] || "(no name)", () => this.select(span), {
        style: `margin-left: ${Math.min(depth[span], 20)}em`,
        "aria-pressed": String(span === selected)
      });
      name.dataset.span = String(span);
      const times = [spans.start, this.counts[2] ?? spans.duration, spans.self];
      const cells = times.map((each) => make("td", { class: "number" }, exactTime(each[span])));
      const service = make("td", {}, this.services[spans.service[span]]);
      const marks = make("td", {}, this.marks(spans.flags[span]).join(", "));
      rows.push(make("tr", {}, make("td", {}, name), service, ...cells.slice(this.isTrace ? 0 : 1), marks));
    }
    const titles = ["span", "service", ...this.isTrace ? ["start", "duration"] : ["total"], "self", "marks"];
    const caption = `Spans ${this.page * PAGE + 1}–${last} of ${total.toLocaleString("en")}`;
    const turn = (by) => () => {
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
        make("tbody", {}, ...rows)
      ),
      makeButton("Previous page", turn(-1), { disabled: this.page === 0 }),
      makeButton("Next page", turn(1), { disabled: this.page >= pages - 1 })
    );
  }
  // User actions
  select(span) {
    const scene = this.scene;
    scene.selected = span;
    this.live.textContent = this.describe(span);
    for (const each of this.table.querySelectorAll("[data-span]")) {
      each.setAttribute("aria-pressed", String(each.dataset.span === String(span)));
    }
    this.reveal();
    clearTimeout(this.timer);
    if (!this.isTrace) this.details.replaceChildren(make("p", {}, this.describe(span)));
    else this.timer = setTimeout(() => void this.tell(() => this.fetchDetails(span)), DETAILS_DELAY);
  }
  async fetchDetails(span) {
    const { answer } = await this.kernel.ask("details", { span });
    if (span !== this.scene?.selected) return;
    const open = (id) => void this.tell(async () => {
      this.live.textContent = await openTrace(this.root, id);
    });
    this.details.replaceChildren(...drawDetails(answer, open));
    this.details.scrollTop = 0;
  }
  /** Scroll and pan to the selected span. */
  reveal() {
    const scene = this.scene;
    const { spans, selected, from, to } = scene;
    const line = scene.rows ? scene.rows.row[selected] : scene.visible.indexOf(selected);
    const room = this.painter.height - TOP;
    if (line * ROW < scene.scroll || (line + 1) * ROW > scene.scroll + room) scene.scroll = line * ROW - room / 2;
    const [start, end] = [spans.start[selected], spans.start[selected] + spans.duration[selected]];
    if (end < from || start > to) this.zoomTo(start - (to - from) / 2, start + (to - from) / 2);
    this.request();
  }
  async find(text) {
    this.page = 0;
    this.found.textContent = text.trim() && "searching…";
    let spans = [];
    try {
      if (text.trim()) ({ spans } = (await this.kernel.ask("search", { text: text.trim() })).answer);
    } finally {
      if (this.search.value === text) this.found.textContent = "";
    }
    if (this.search.value !== text) return;
    const matches = this.scene.matches = new Set(spans);
    const time = spans.reduce((sum, span) => sum + this.scene.spans.self[span], 0);
    const result = `${matches.size.toLocaleString("en")} found · self ${shortTime(time)}`;
    this.found.textContent = text.trim() && result;
    if (this.view === "table") this.fillTable();
    this.request();
  }
  listen() {
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
    canvas.addEventListener("pointercancel", () => this.drag = void 0);
    canvas.addEventListener("pointerleave", () => this.tip.hidden = true);
    canvas.addEventListener("dblclick", () => this.scene && this.press("Enter"));
  }
  wheel = (event) => {
    const { scene } = this;
    if (!scene) return;
    const isSideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(event.deltaY * 25e-4), this.timeAt(event.offsetX));
    else if (isSideways) this.pan((event.deltaX || event.deltaY) / this.painter.width);
    else if (event.deltaY < 0 ? scene.scroll > 0 : scene.scroll < this.maxScroll) scene.scroll += event.deltaY;
    else return;
    event.preventDefault();
    this.request();
  };
  move = (event) => {
    const { scene, drag } = this;
    if (!scene) return;
    const span = drag ? void 0 : this.painter.find(scene, event.offsetX, event.offsetY);
    this.tip.hidden = span === void 0;
    if (span === void 0) return;
    this.tip.textContent = this.describe(span);
    this.tip.style.left = `${Math.max(0, Math.min(event.offsetX + 12, this.painter.width - 240))}px`;
    this.tip.style.top = `${event.offsetY + 14}px`;
  };
  release = (event) => {
    const { scene, drag } = this;
    this.drag = void 0;
    if (!scene || !drag) return;
    const { offsetX, offsetY } = event;
    if (Math.abs(offsetX - drag.x) > MIN_DRAG) {
      const times = [drag.x, offsetX].map(
        (x) => drag.isMap ? x / this.painter.width * scene.total : this.timeAt(x)
      );
      this.zoomTo(Math.min(...times), Math.max(...times));
      return;
    }
    const span = this.painter.find(scene, offsetX, offsetY);
    if (span === void 0) return;
    const isSign = !scene.rows && Math.abs(offsetX - this.painter.indent(scene, span) - 5) < 9;
    if (isSign) this.fold(span, !this.closed.has(span));
    this.select(span);
  };
  press(key) {
    const { spans, selected, matches, rows } = this.scene;
    const [start, end] = [spans.start[selected], spans.start[selected] + spans.duration[selected]];
    const middle = Math.max(this.scene.from, Math.min(this.scene.to, (start + end) / 2));
    const keys = {
      w: () => this.zoom(0.7, middle),
      s: () => this.zoom(1 / 0.7, middle),
      a: () => this.pan(-0.2),
      d: () => this.pan(0.2),
      "0": () => this.zoomTo(0, Infinity),
      Enter: () => this.zoomTo(start, end),
      e: () => this.select(this.next((span) => (spans.flags[span] & ERROR) !== 0)),
      p: () => this.select(this.next((span) => (spans.flags[span] & CRITICAL) !== 0)),
      n: () => this.select(this.next((span) => matches.has(span))),
      "/": () => this.search.focus(),
      Home: () => this.select(0),
      ArrowUp: () => this.select(rows ? Math.max(spans.parent[selected], 0) : this.neighbor(-1)),
      ArrowDown: () => this.select(rows ? selected + (spans.size[selected] > 1 ? 1 : 0) : this.neighbor(1)),
      ArrowRight: () => rows ? this.select(this.sibling(1)) : this.fold(selected, false),
      ArrowLeft: () => rows ? this.select(this.sibling(-1)) : this.foldOrClimb(selected)
    };
    const action = keys[key];
    action?.();
    return action !== void 0;
  }
  neighbor(step) {
    const { visible, selected } = this.scene;
    return visible[Math.max(0, Math.min(visible.length - 1, visible.indexOf(selected) + step))];
  }
  sibling(step) {
    const { spans, selected } = this.scene;
    const above = spans.parent[selected];
    if (step > 0) {
      const next = selected + spans.size[selected];
      return next < (above < 0 ? spans.count : above + spans.size[above]) ? next : selected;
    }
    let before = selected;
    for (let each = above + 1; each < selected; each += spans.size[each]) before = each;
    return before;
  }
  next(test) {
    const { spans, selected } = this.scene;
    for (let step = 1; step < spans.count; step++) {
      const span = (selected + step) % spans.count;
      if (!test(span)) continue;
      for (let above = spans.parent[span]; above >= 0; above = spans.parent[above]) this.fold(above, false);
      return span;
    }
    return selected;
  }
  foldOrClimb(span) {
    const { spans } = this.scene;
    if (this.closed.has(span) || spans.size[span] === 1) this.select(Math.max(spans.parent[span], 0));
    else this.fold(span, true);
  }
  fold(span, isClosed) {
    if (this.closed.has(span) === isClosed || isClosed && this.scene.spans.size[span] === 1) return;
    if (isClosed) this.closed.add(span);
    else this.closed.delete(span);
    this.scene.visible = this.listVisible(this.scene.spans);
    this.request();
  }
  timeAt(x) {
    const { from, to } = this.scene;
    const left = this.painter.left(this.scene);
    return from + (x - left) / (this.painter.width - left) * (to - from);
  }
  zoom(factor, at) {
    const { from, to } = this.scene;
    this.zoomTo(at - (at - from) * factor, at + (to - at) * factor);
  }
  pan(share) {
    const { from, to } = this.scene;
    const by = Math.max(-from, Math.min(this.scene.total - to, (to - from) * share));
    this.zoomTo(from + by, to + by);
  }
  zoomTo(from, to) {
    const { scene } = this;
    if (!scene) return;
    const shown = Math.min(Math.max(to - from, MIN_NANOSECONDS), scene.total);
    scene.from = Math.max(0, Math.min(from, scene.total - shown));
    scene.to = scene.from + shown;
    this.request();
  }
};
function group(name, label) {
  return make("div", { class: name, role: "group", "aria-label": label, tabindex: 0 });
}
export {
  trace_default as default
};
