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

// src/logs/messages.ts
var LEVELS = ["", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
function countText(count) {
  return count.toLocaleString("en");
}
function timeText(microseconds) {
  return new Date(microseconds / 1e3).toISOString().slice(11, 19);
}

// src/logs/volume.ts
var HEIGHT = 56;
var AXIS = 14;
var LABEL_WIDTH = 120;
var VolumeChart = class {
  constructor(choose) {
    this.choose = choose;
    this.root.addEventListener("keydown", this.keyPressed);
    this.root.addEventListener("blur", () => this.draw());
    this.root.addEventListener("focus", () => this.draw());
    this.root.addEventListener("pointerdown", (event) => {
      this.anchor = this.cursor = this.barAt(event.offsetX);
      this.isSelecting = true;
      this.root.setPointerCapture(event.pointerId);
      this.draw();
    });
    this.root.addEventListener("pointermove", (event) => {
      if (!this.isSelecting) return;
      this.cursor = this.barAt(event.offsetX);
      this.draw();
    });
    this.root.addEventListener("pointerup", () => {
      if (this.isSelecting && this.cursor !== this.anchor) this.apply();
      this.isSelecting = false;
    });
    this.root.addEventListener("pointercancel", () => this.isSelecting = false);
  }
  choose;
  root = make("canvas", {
    class: "micromegas-logs-volume",
    tabindex: 0,
    role: "slider",
    "aria-label": "Lines over time. Shift with the arrow keys selects a range, Enter shows it",
    "aria-valuemin": 0
  });
  state;
  cursor = 0;
  anchor = 0;
  isSelecting = false;
  show(state) {
    const before = this.state;
    if (before && (before.begin !== state.begin || before.width !== state.width)) this.cursor = this.anchor = 0;
    this.state = state;
    this.cursor = Math.min(this.cursor, state.bars.length - 1);
    this.anchor = Math.min(this.anchor, state.bars.length - 1);
    this.draw();
  }
  draw() {
    const { state, root } = this;
    const width = root.clientWidth;
    const pen = root.getContext("2d");
    if (!state) return;
    this.describe(state);
    if (!width || !pen) return;
    root.width = width * devicePixelRatio;
    root.height = HEIGHT * devicePixelRatio;
    pen.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(root);
    const highest = Math.max(1, ...state.bars.map(sum));
    const step = width / state.bars.length;
    const [from, to] = this.range();
    if (from !== to || root.matches(":focus")) {
      pen.fillStyle = style.getPropertyValue("--selected");
      pen.fillRect(from * step, 0, (to - from + 1) * step, HEIGHT - AXIS);
    }
    state.bars.forEach((bar, index) => {
      let y = HEIGHT - AXIS;
      bar.forEach((count, level) => {
        const height = count / highest * (HEIGHT - AXIS - 2);
        pen.fillStyle = style.getPropertyValue(`--level${level + 1}`);
        pen.fillRect(index * step, y - height, Math.max(step - 1, 1), height);
        y -= height;
      });
    });
    pen.fillStyle = style.color;
    pen.font = "10px system-ui, sans-serif";
    for (let x = 0; x < width - LABEL_WIDTH / 2; x += LABEL_WIDTH)
      pen.fillText(timeText(state.begin + x / step * state.width), x, HEIGHT - 3);
  }
  describe(state) {
    const [from, to] = this.range();
    const counts = LEVELS.slice(1).map((name, level) => [
      name,
      sum(state.bars.slice(from, to + 1).map((bar) => bar[level] ?? 0))
    ]);
    const found = counts.filter(([, count]) => count > 0).map(([name, count]) => `${countText(count)} ${name}`);
    const [begin, end] = [from, to + 1].map((bar) => timeText(state.begin + bar * state.width));
    this.root.setAttribute("aria-valuemax", String(state.bars.length - 1));
    this.root.setAttribute("aria-valuenow", String(this.cursor));
    this.root.setAttribute("aria-valuetext", `${begin ?? ""} to ${end ?? ""}: ${found.join(", ") || "no lines"}`);
    this.root.title = this.root.getAttribute("aria-valuetext") ?? "";
  }
  range() {
    return [Math.min(this.cursor, this.anchor), Math.max(this.cursor, this.anchor)];
  }
  barAt(x) {
    const bars = this.state?.bars.length ?? 1;
    return Math.max(Math.min(Math.floor(x / this.root.clientWidth * bars), bars - 1), 0);
  }
  apply() {
    if (!this.state) return;
    const [from, to] = this.range();
    const { begin, width } = this.state;
    this.choose(begin + from * width, begin + (to + 1) * width);
  }
  keyPressed = (event) => {
    const last = (this.state?.bars.length ?? 1) - 1;
    const to = { ArrowLeft: this.cursor - 1, ArrowRight: this.cursor + 1, Home: 0, End: last }[event.key];
    if (event.key === "Enter") this.apply();
    else if (to === void 0) return;
    else {
      this.cursor = Math.max(Math.min(to, last), 0);
      if (!event.shiftKey) this.anchor = this.cursor;
      this.draw();
    }
    event.preventDefault();
    event.stopPropagation();
  };
};
function sum(counts) {
  return counts.reduce((total, each) => total + each, 0);
}

// src/logs/logs.ts
var ROW_HEIGHT = 18;
var MAX_CACHED_LINES = 600;
var BLOCK_LINES = 200;
var PAGE_ROWS = 15;
var WATCH_MILLISECONDS = 2e4;
var views = 0;
var LogView = class {
  constructor(model) {
    this.model = model;
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
      const line = event.target instanceof Element ? event.target.closest("[data-line]") : null;
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
        this.follow
      ),
      this.chips,
      this.volume.root,
      make("div", { class: "micromegas-logs-body" }, this.pane, this.detail)
    );
    suppressShortcuts(this.root);
    this.observer.observe(this.root);
    model.on("msg:custom", this.receive);
    this.watch();
    void this.change("state", {});
  }
  model;
  root;
  kernel;
  name = `micromegas-logs-${++views}`;
  page = crypto.getRandomValues(new Uint32Array(2)).join("-");
  state;
  cache = /* @__PURE__ */ new Map();
  fetching = -1;
  isAtEnd = true;
  selected = -1;
  status = make("span", { class: "micromegas-logs-status", role: "status" });
  message = make("span", { role: "alert" });
  chips = make("div", { class: "micromegas-logs-chips" });
  level = make(
    "select",
    { "aria-label": "Level" },
    ...LEVELS.slice(1).map((name, index) => make("option", { value: index + 1 }, `${name} or worse`))
  );
  search = make("input", {
    type: "search",
    placeholder: "Search messages",
    "aria-label": "Search messages"
  });
  follow = makeButton(
    "Follow",
    () => void this.change("follow", { is_on: !this.state?.is_following }),
    {
      "aria-pressed": "false"
    }
  );
  unwatchTheme = watchTheme(() => this.volume.draw());
  volume = new VolumeChart((begin, end) => void this.change("range", { begin, end }));
  pane = make("div", {
    class: "micromegas-logs-pane",
    tabindex: 0,
    role: "listbox",
    "aria-label": "Log lines"
  });
  sizer = make("div", { class: "micromegas-logs-sizer", role: "presentation" });
  detail = make("div", {
    class: "micromegas-logs-detail",
    role: "group",
    "aria-label": "Details",
    tabindex: 0,
    hidden: true
  });
  observer = new ResizeObserver(() => {
    this.volume.draw();
    this.draw();
  });
  timer = setInterval(() => this.watch(), WATCH_MILLISECONDS);
  close() {
    clearInterval(this.timer);
    this.observer.disconnect();
    this.unwatchTheme();
    this.model.off("msg:custom", this.receive);
    this.kernel.close();
    this.model.send({ id: 0, op: "leave", page: this.page });
  }
  /** A follow stops when no page sends this for some time, or when the output is removed. */
  watch() {
    this.model.send({ id: 0, op: "watch", page: this.page });
  }
  receive = ({ news }) => {
    if (news) this.show(news);
  };
  /** Change the view; if the kernel can't, the view stays unchanged and shows the reason. */
  async change(op, details) {
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
      if (hasFocus && !this.root.contains(document.activeElement)) this.pane.focus({ preventScroll: true });
    });
  }
  async tell(action) {
    try {
      await action();
    } catch (error) {
      this.say(error.message);
    }
  }
  say(sentence) {
    this.message.textContent = sentence;
  }
  show(state) {
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
    else if (before) this.pane.scrollTop -= Math.max(state.first - before.first, 0) * ROW_HEIGHT;
    this.draw();
  }
  showFilters({ filters }) {
    const texts = filters.map(([key, value, isExcluded]) => `${key} ${isExcluded ? "≠" : "="} ${value}`);
    if (texts.join("\n") === [...this.chips.children].map((chip) => chip.dataset.text).join("\n"))
      return;
    this.chips.replaceChildren(
      ...texts.map(
        (text, index) => makeButton(`${text} ✕`, () => void this.change("unfilter", { index }), {
          "data-text": text,
          "aria-label": `Remove the filter ${text}`
        })
      )
    );
  }
  remember({ first, lines }) {
    lines.forEach((line, index) => {
      this.cache.delete(first + index);
      this.cache.set(first + index, line);
    });
    for (const number of this.cache.keys()) {
      if (this.cache.size <= MAX_CACHED_LINES) break;
      this.cache.delete(number);
    }
  }
  draw() {
    const { state } = this;
    if (!state) return;
    const top = Math.max(state.first + Math.floor(this.pane.scrollTop / ROW_HEIGHT) - 2, state.first);
    const bottom = Math.min(top + Math.ceil(this.pane.clientHeight / ROW_HEIGHT) + 4, state.next);
    const numbers = Array.from({ length: Math.max(bottom - top, 0) }, (_, index) => top + index);
    this.sizer.replaceChildren(...numbers.map((number) => this.makeRow(number, number - state.first)));
    if (numbers.includes(this.selected)) this.pane.setAttribute("aria-activedescendant", this.idOf(this.selected));
    else this.pane.removeAttribute("aria-activedescendant");
    if (this.fetching < 0 && numbers.some((number) => !this.cache.has(number))) void this.fetch(top);
  }
  async fetch(top) {
    this.fetching = top;
    await this.tell(async () => {
      const first = Math.max(top - (BLOCK_LINES - PAGE_ROWS) / 2, 0);
      const { answer } = await this.kernel.ask("lines", { first, count: BLOCK_LINES });
      this.remember(answer);
    });
    this.fetching = -1;
    requestAnimationFrame(() => this.root.isConnected && this.draw());
  }
  makeRow(number, place) {
    const [time, level, service, target, text] = this.cache.get(number) ?? ["…", 0, "", "", ""];
    const row = make(
      "div",
      {
        class: `micromegas-logs-line micromegas-logs-level${level}`,
        role: "option",
        id: this.idOf(number),
        "aria-selected": String(number === this.selected),
        "data-line": number
      },
      make("span", {}, time),
      make("b", {}, LEVELS[level] ?? String(level)),
      make("span", { class: "micromegas-logs-target" }, [service, target].filter(Boolean).join(" ")),
      make("span", { class: "micromegas-logs-text" }, text)
    );
    row.style.top = `${place * ROW_HEIGHT}px`;
    return row;
  }
  idOf(number) {
    return `${this.name}-${number}`;
  }
  scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = this.pane;
    this.isAtEnd = scrollTop + clientHeight >= scrollHeight - ROW_HEIGHT;
    this.draw();
  };
  select(number) {
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
  keyPressed = (event) => {
    const { state } = this;
    if (!state) return;
    const at = this.selected < state.first ? state.next - 1 : this.selected;
    const isFirst = this.selected < 0;
    const moves = {
      ArrowUp: isFirst ? at : at - 1,
      ArrowDown: isFirst ? at : at + 1,
      PageUp: at - PAGE_ROWS,
      PageDown: at + PAGE_ROWS,
      Home: state.first,
      End: state.next - 1
    };
    const to = moves[event.key];
    if (to !== void 0) this.select(to);
    else if (event.key === "Enter" && !this.detail.hidden) this.detail.focus();
    else if (event.key === "Escape") this.showDetail();
    else if (event.key === "/") this.search.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  closeDetail = () => {
    this.showDetail();
    this.pane.focus({ preventScroll: true });
  };
  showDetail(...content) {
    const close = makeButton("Close", this.closeDetail);
    this.detail.hidden = content.length === 0;
    this.detail.replaceChildren(...content.length ? [...content, close] : []);
  }
  describe({ line, time, level, message, values, trace_id }) {
    const filter = (key, is_excluded) => void this.change("filter", { line, key, is_excluded });
    const rows = values.map(
      ([key, value]) => make(
        "tr",
        {},
        make("th", { scope: "row" }, key),
        make("td", {}, value),
        make(
          "td",
          {},
          makeButton("Only", () => filter(key, false), { "aria-label": `Only lines with this ${key}` }),
          makeButton("Not", () => filter(key, true), { "aria-label": `No lines with this ${key}` })
        )
      )
    );
    const actions = [makeButton("±1 minute", () => void this.change("around", { line }))];
    if (trace_id) actions.push(makeButton("Its trace", () => void this.openTrace(trace_id)));
    return [
      make("h3", {}, `${LEVELS[level] ?? String(level)} ${time}`),
      make("pre", {}, message),
      make("div", { class: "micromegas-logs-actions" }, ...actions),
      make("table", {}, make("tbody", {}, ...rows))
    ];
  }
  async openTrace(traceId) {
    await this.tell(async () => {
      this.say(await openTrace(this.root, traceId));
    });
  }
  async showPatterns() {
    await this.tell(async () => {
      const { answer } = await this.kernel.ask("patterns");
      const more = answer.count - answer.patterns.length;
      const rows = answer.patterns.map(
        ([text, count, level]) => make(
          "tr",
          { class: `micromegas-logs-level${level}` },
          make("td", { class: "micromegas-logs-count" }, countText(count)),
          make("td", {}, make("b", {}, LEVELS[level] ?? String(level))),
          make("td", {}, text)
        )
      );
      const title = `${countText(answer.count)} patterns${more > 0 ? `, the ${rows.length} most frequent` : ""}`;
      this.showDetail(make("h3", {}, title), make("table", {}, make("tbody", {}, ...rows)));
      this.detail.focus({ preventScroll: true });
    });
  }
};
var logs_default = {
  render({ model, el }) {
    const view = new LogView(model);
    el.append(view.root);
    return () => view.close();
  }
};
export {
  logs_default as default
};
