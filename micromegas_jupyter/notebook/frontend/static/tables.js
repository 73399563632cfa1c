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

// src/tables/tables.ts
var tables_default = {
  render({ model, el }) {
    const search = make("input", {
      type: "search",
      value: model.get("search"),
      placeholder: "part of a name; * is any text",
      autocomplete: "off",
      spellcheck: "false"
    });
    const status = make("div", { class: "micromegas-tables-status", role: "status", "aria-live": "polite" });
    const announce = (text) => {
      if (status.textContent !== text) status.textContent = text;
    };
    const entries = model.get("tables").map((table) => new TableEntry(table, model, announce));
    const filter = () => {
      const matches = nameMatcher(search.value);
      const found = entries.filter((entry) => entry.filter(matches, search.value.trim() !== "")).length;
      const isAll = found === entries.length;
      announce(isAll ? model.get("title") : `${found} of ${entries.length} tables match`);
    };
    const showFacts = () => entries.forEach((entry) => entry.showFacts());
    search.addEventListener("input", filter);
    model.on("change:facts", showFacts);
    filter();
    showFacts();
    el.append(
      make(
        "section",
        { class: "micromegas-tables", "aria-label": `Tables of ${model.get("server")}` },
        make(
          "div",
          { class: "micromegas-tables-head" },
          make("label", {}, "Search tables and columns", search),
          status
        ),
        make("div", { class: "micromegas-tables-list" }, ...entries.map((entry) => entry.root))
      )
    );
    return () => model.off("change:facts", showFacts);
  }
};
var TableEntry = class {
  constructor(table, model, announce) {
    this.table = table;
    this.model = model;
    this.announce = announce;
    const summary = make(
      "summary",
      {},
      make("code", {}, table.name),
      this.summaryFacts,
      make("span", { class: "micromegas-tables-about" }, table.remarks)
    );
    const bar = make(
      "div",
      { class: "micromegas-tables-bar" },
      this.facts,
      makeCopyButton("Copy name", table.name, announce),
      makeCopyButton("Copy SELECT", selectStatement(table), announce)
    );
    this.body.append(bar);
    this.root.append(summary, this.body);
    summary.addEventListener("click", () => this.askForFacts());
    this.root.addEventListener("toggle", () => {
      if (this.root.open) this.drawColumns();
    });
  }
  table;
  model;
  announce;
  root = make("details");
  // What is known of a table can be seen without opening it; while it is open, only the bar shows it.
  summaryFacts = make("span", { class: "micromegas-tables-known" });
  facts = make("span", { role: "status" });
  body = make("div", { class: "micromegas-tables-body" });
  /** Made when the table is first opened: a server may have many. */
  rows;
  isOpenedBySearch = false;
  showFacts() {
    const line = this.knownFacts();
    if (line === void 0) return;
    this.summaryFacts.textContent = line;
    this.facts.textContent = line;
  }
  /** Return whether the table matches; when only columns do, it opens and shows those. */
  filter(matches, isSearching) {
    const byName = matches(this.table.name);
    const byColumn = isSearching && !byName && this.table.columns.some(([name]) => matches(name));
    this.root.hidden = !byName && !byColumn;
    if (byColumn) {
      this.drawColumns();
      this.isOpenedBySearch ||= !this.root.open;
      this.root.open = true;
    } else if (this.isOpenedBySearch) {
      this.isOpenedBySearch = false;
      this.root.open = false;
    }
    for (const { row, name } of this.rows ?? []) row.hidden = byColumn && !matches(name);
    return byName || byColumn;
  }
  askForFacts() {
    if (this.root.open || this.knownFacts() !== void 0) return;
    this.facts.textContent = "Counting…";
    this.model.send({ open: this.table.name });
  }
  // A table may be named like something that every object has.
  knownFacts() {
    const facts = this.model.get("facts");
    return Object.hasOwn(facts, this.table.name) ? facts[this.table.name] : void 0;
  }
  drawColumns() {
    if (this.rows) return;
    this.rows = this.table.columns.map(([name, type, remarks]) => {
      const copy = makeCopyButton("Copy", name, this.announce, { "aria-label": `Copy ${name}` });
      const cells = [make("td", {}, make("code", {}, name), copy), make("td", {}, type), make("td", {}, remarks)];
      return { row: make("tr", {}, ...cells), name };
    });
    const titles = ["Column", "Type", "Description"].map((title) => make("th", { scope: "col" }, title));
    const head = make("thead", {}, make("tr", {}, ...titles));
    this.body.append(make("table", {}, head, make("tbody", {}, ...this.rows.map(({ row }) => row))));
  }
};
function nameMatcher(text) {
  const parts = text.trim().split("*");
  const expression = new RegExp(parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join(".*"), "i");
  return (name) => expression.test(name);
}
function selectStatement(table) {
  return `SELECT ${table.columns.map(([name]) => nameInSql(name)).join(", ")} FROM ${nameInSql(table.name)}`;
}
function nameInSql(name) {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}
function makeCopyButton(title, text, announce, attributes = {}) {
  const copy = async () => {
    try {
      await copyText(text);
      announce(text.length > 60 ? "Copied." : `Copied ${text}`);
    } catch {
      announce("The browser does not let this page copy. Select the name and copy it.");
    }
  };
  return makeButton(title, () => void copy(), attributes);
}
export {
  tables_default as default
};
