// Shows the tables of a server and searches them in the browser. It asks the kernel for one thing only: what a table
// holds, when a person opens it. The kernel's half is table_explorer.py.

import { copyText, make, makeButton } from "../dom";
import type { Model, RenderContext } from "../widget";

type Column = readonly [name: string, type: string, remarks: string];

interface Table {
  name: string;
  remarks: string;
  columns: readonly Column[];
}

type Announce = (text: string) => void;
type Matcher = (name: string) => boolean;

export default {
  render({ model, el }: RenderContext): () => void {
    const search = make("input", {
      type: "search",
      value: model.get("search") as string,
      placeholder: "part of a name; * is any text",
      autocomplete: "off",
      spellcheck: "false",
    });
    // Announced when it changes: how many tables match, and what was copied.
    const status = make("div", { class: "micromegas-tables-status", role: "status", "aria-live": "polite" });
    const announce: Announce = (text) => {
      if (status.textContent !== text) status.textContent = text;
    };
    const entries = (model.get("tables") as Table[]).map((table) => new TableEntry(table, model, announce));

    const filter = (): void => {
      const matches = nameMatcher(search.value);
      const found = entries.filter((entry) => entry.filter(matches, search.value.trim() !== "")).length;
      const isAll = found === entries.length;
      announce(isAll ? (model.get("title") as string) : `${found} of ${entries.length} tables match`);
    };
    const showFacts = (): void => entries.forEach((entry) => entry.showFacts());
    search.addEventListener("input", filter);
    model.on("change:facts", showFacts);
    filter();
    showFacts();

    el.append(
      make(
        "section",
        { class: "micromegas-tables", "aria-label": `Tables of ${model.get("server") as string}` },
        make(
          "div",
          { class: "micromegas-tables-head" },
          make("label", {}, "Search tables and columns", search),
          status,
        ),
        make("div", { class: "micromegas-tables-list" }, ...entries.map((entry) => entry.root)),
      ),
    );
    return () => model.off("change:facts", showFacts);
  },
};

class TableEntry {
  readonly root = make("details");
  // What is known of a table can be seen without opening it; while it is open, only the bar shows it.
  private readonly summaryFacts = make("span", { class: "micromegas-tables-known" });
  private readonly facts = make("span", { role: "status" });
  private readonly body = make("div", { class: "micromegas-tables-body" });
  /** Made when the table is first opened: a server may have many. */
  private rows: { row: HTMLElement; name: string }[] | undefined;
  private isOpenedBySearch = false;

  constructor(
    private readonly table: Table,
    private readonly model: Model,
    private readonly announce: Announce,
  ) {
    const summary = make(
      "summary",
      {},
      make("code", {}, table.name),
      this.summaryFacts,
      make("span", { class: "micromegas-tables-about" }, table.remarks),
    );
    const bar = make(
      "div",
      { class: "micromegas-tables-bar" },
      this.facts,
      makeCopyButton("Copy name", table.name, announce),
      makeCopyButton("Copy SELECT", selectStatement(table), announce),
    );
    this.body.append(bar);
    this.root.append(summary, this.body);
    // Only what a person opens is counted, not what a search opens.
    summary.addEventListener("click", () => this.askForFacts());
    this.root.addEventListener("toggle", () => {
      if (this.root.open) this.drawColumns();
    });
  }

  showFacts(): void {
    const line = this.knownFacts();
    if (line === undefined) return;
    this.summaryFacts.textContent = line;
    this.facts.textContent = line;
  }

  /** Return whether the table matches; when only columns do, it opens and shows those. */
  filter(matches: Matcher, isSearching: boolean): boolean {
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

  private askForFacts(): void {
    if (this.root.open || this.knownFacts() !== undefined) return;
    this.facts.textContent = "Counting…";
    this.model.send({ open: this.table.name });
  }

  // A table may be named like something that every object has.
  private knownFacts(): string | undefined {
    const facts = this.model.get("facts") as Record<string, string>;
    return Object.hasOwn(facts, this.table.name) ? facts[this.table.name] : undefined;
  }

  private drawColumns(): void {
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
}

/** Match a part of a name in any case, where `*` is any text, as `build_listing` in table_explorer.py does. */
function nameMatcher(text: string): Matcher {
  const parts = text.trim().split("*");
  const expression = new RegExp(parts.map((part) => part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join(".*"), "i");
  return (name) => expression.test(name);
}

function selectStatement(table: Table): string {
  return `SELECT ${table.columns.map(([name]) => nameInSql(name)).join(", ")} FROM ${nameInSql(table.name)}`;
}

function nameInSql(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

function makeCopyButton(
  title: string,
  text: string,
  announce: Announce,
  attributes: Record<string, string> = {},
): HTMLButtonElement {
  const copy = async (): Promise<void> => {
    try {
      await copyText(text);
      announce(text.length > 60 ? "Copied." : `Copied ${text}`);
    } catch {
      announce("The browser does not let this page copy. Select the name and copy it.");
    }
  };
  return makeButton(title, () => void copy(), attributes);
}
