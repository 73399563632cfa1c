// The side panel: the tables of the server of the notebook in front, the history of its queries, and queries that are
// running on the server. Names, descriptions and statements come from others, so they only ever become text nodes.

import { type INotebookTracker, NotebookActions } from "@jupyterlab/notebook";
import type { Message } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";

import { copyText, make, makeButton } from "../../src/dom";
import { insertText, NEW_CELL } from "./cells";
import {
  PanelKernel,
  type KernelConnection,
  type Column,
  type PastQuery,
  type RunningQuery,
  type Table,
} from "./panelKernel";
import { ICON, STYLE } from "./panelStyle";

const POLL_MILLISECONDS = 3_000;
const MAX_OPENED = 10;
const NO_NOTEBOOK = "Open a notebook to see the tables of its server.";
const NOT_LOADED = "Run %load_ext micromegas_jupyter in the notebook to see the tables of its server.";

interface Section {
  root: HTMLDetailsElement;
  body: HTMLElement;
  load: (kernel: PanelKernel) => Promise<void>;
}

export class SidePanel extends Widget {
  private kernel: PanelKernel | undefined;
  private connecting: Promise<void> | undefined;
  private known: Table[] = [];
  /** What kept a section from being loaded the last time. */
  private problem = "";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly message = make("p", { class: "micromegas-panel-message", role: "status" }, NO_NOTEBOOK);
  private readonly search = make("input", {
    type: "search",
    placeholder: "Find tables and columns",
    "aria-label": "Find tables and columns",
  });
  private readonly list = make("ul", { "aria-label": "Tables" });
  /** The connection in use, and those that `%micromegas_connect` named. */
  private readonly connection = make("select", { "aria-label": "Connection", hidden: true });
  private readonly sections: Section[];

  constructor(private readonly notebooks: INotebookTracker) {
    super();
    this.id = "micromegas-panel";
    this.addClass("micromegas-panel");
    this.title.caption = "Micromegas: tables and queries";
    this.title.icon = { render: (host) => host.replaceChildren(ICON.cloneNode(true)) };
    this.search.addEventListener("input", () => this.showTables());
    this.connection.addEventListener("change", () => {
      if (this.kernel) this.kernel.connection = this.connection.value;
      void this.refresh();
    });
    const tables = this.section("Tables", true, async (kernel) => {
      const { connection } = kernel;
      const found = await kernel.ask("tables");
      if (connection !== kernel.connection) return; // another one was chosen meanwhile
      this.known = found;
      this.showTables();
    });
    tables.body.append(this.search, this.list);
    const history = this.section("History", true, async (kernel) => {
      const { own, others } = await kernel.ask("history");
      const lists = [list("Queries of this notebook", own.map(this.pastQuery))];
      if (others.length)
        lists.push(make("h3", {}, "Other notebooks"), list("Other notebooks", others.map(this.pastQuery)));
      history.body.replaceChildren(
        ...(own.length + others.length ? lists : ["No query has run in this notebook yet."]),
      );
    });
    const running = this.section("Running on the server", false, async (kernel) => {
      const found = await kernel.ask("running");
      const items = found.map((query) => this.runningQuery(query));
      keepFocus(running.body, () =>
        running.body.replaceChildren(
          items.length ? list("Running queries", items) : "No query is running on the server.",
        ),
      );
    });
    this.sections = [tables, history, running];
    const bar = make(
      "div",
      { class: "micromegas-panel-bar" },
      make("h2", {}, "Micromegas"),
      makeButton("Refresh", () => void this.refresh()),
    );
    this.node.append(make("style", {}, STYLE), bar, this.connection, this.message);
    this.node.append(...this.sections.map(({ root }) => root));
    notebooks.currentChanged.connect((_sender, panel) => {
      panel?.sessionContext.kernelChanged.connect(() => this.reconnect(), this);
      this.reconnect();
    });
    NotebookActions.executed.connect((_sender, { notebook }) => {
      if (notebook !== this.notebooks.currentWidget?.content || !this.isVisible) return;
      if (!this.kernel || this.kernel.isClosed || !this.known.length) void this.refresh();
      else void Promise.all([this.loadConnections(), this.load(history)]);
    });
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    void this.refresh();
  }

  override dispose(): void {
    clearTimeout(this.timer);
    this.kernel?.close();
    super.dispose();
  }

  private section(title: string, open: boolean, load: Section["load"]): Section {
    const body = make("div", { class: "micromegas-panel-body" });
    const root = make("details", { open }, make("summary", {}, make("h3", {}, title)), body);
    const made = { root, body, load };
    root.addEventListener("toggle", () => {
      if (root.open) void this.load(made);
    });
    return made;
  }

  private reconnect(): void {
    this.kernel?.close();
    this.kernel = undefined;
    this.known = [];
    if (this.isVisible) void this.refresh();
  }

  private async refresh(): Promise<void> {
    await (this.connecting ??= this.connect().finally(() => (this.connecting = undefined)));
    for (const section of this.sections) section.root.hidden = !this.kernel;
    await this.loadConnections();
    await Promise.all(this.sections.map((section) => this.load(section)));
  }

  private async loadConnections(): Promise<void> {
    const kernel = this.kernel;
    const names = (await kernel?.ask("connections").catch(() => undefined)) ?? [];
    if (kernel !== this.kernel) return;
    const options = [["", "Connection in use"], ...names.map((name) => [name, name])];
    const known = [...this.connection.options].map(({ value }) => value);
    if (options.map(([value]) => value).join() !== known.join())
      this.connection.replaceChildren(...options.map(([value = "", text = ""]) => make("option", { value }, text)));
    if (kernel && !names.includes(kernel.connection)) kernel.connection = "";
    this.connection.value = kernel?.connection ?? "";
    this.connection.hidden = !names.length;
  }

  private frontKernel(): KernelConnection | null | undefined {
    return this.notebooks.currentWidget?.sessionContext.session?.kernel;
  }

  private async connect(): Promise<void> {
    if (this.kernel && !this.kernel.isClosed) return;
    this.kernel = undefined;
    const kernel = this.frontKernel();
    if (!kernel) {
      this.say(NO_NOTEBOOK);
      return;
    }
    const found = await PanelKernel.find(kernel).catch(() => undefined);
    if (kernel !== this.frontKernel()) {
      found?.close();
      return;
    }
    this.kernel = found;
    this.say(found ? "" : NOT_LOADED);
  }

  /** Load an open section, and say what keeps it from that; running queries are loaded again and again. */
  private async load(section: Section): Promise<void> {
    const kernel = this.kernel;
    if (!kernel || !section.root.open || !this.isVisible) return;
    try {
      await section.load(kernel);
      if (this.message.textContent === this.problem) this.say("");
    } catch (error) {
      if (this.kernel === kernel) this.say((this.problem = (error as Error).message));
    }
    const last = this.sections.at(-1);
    if (section !== last || this.isDisposed) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.load(last), POLL_MILLISECONDS);
  }

  private showTables(): void {
    const term = this.search.value.trim().toLowerCase();
    const matches = ({ name }: { name: string }): boolean => name.toLowerCase().includes(term);
    const found = this.known.flatMap((table) => {
      const columns = matches(table) ? table.columns : table.columns.filter(matches);
      return matches(table) || columns.length ? [{ ...table, columns }] : [];
    });
    const opens = term !== "" && found.length <= MAX_OPENED;
    this.list.replaceChildren(
      ...(found.length ? found.map((table) => this.table(table, opens)) : [make("li", {}, "No table matches.")]),
    );
  }

  private table(table: Table, opens: boolean): HTMLElement {
    const details = make(
      "details",
      {},
      make("summary", {}, table.name, make("span", { class: "micromegas-panel-soft" }, ` ${table.columns.length}`)),
    );
    // A server may have thousands of columns: those of a closed table are not in the page.
    const fill = (): void => {
      if (!details.open || details.childElementCount > 1) return;
      const preview = (): void => {
        const name = this.connection.value;
        void this.newCell(`%%sql${name && ` --connection ${name}`}\nSELECT * FROM ${table.sql} LIMIT 100`);
      };
      details.append(
        ...(table.remarks ? [make("p", {}, table.remarks)] : []),
        this.button("Insert name", `Insert the name ${table.name}`, () => this.insert(table.sql)),
        this.button("Preview", `Preview ${table.name} in a new cell`, preview),
        list(
          `Columns of ${table.name}`,
          table.columns.map((column) => this.column(column)),
        ),
      );
    };
    details.addEventListener("toggle", fill);
    details.open = opens;
    return make("li", {}, details);
  }

  private column(column: Column): HTMLElement {
    return make(
      "li",
      {},
      this.button(column.name, `Insert the name ${column.name}`, () => this.insert(column.sql)),
      make("span", { class: "micromegas-panel-soft" }, ` ${column.type}`),
      ...(column.remarks ? [make("p", {}, column.remarks)] : []),
    );
  }

  private readonly pastQuery = ({ head, sql, cell }: PastQuery, index: number): HTMLElement =>
    make(
      "li",
      {},
      ...(head ? [make("p", {}, head)] : []),
      make("pre", { tabindex: 0 }, sql),
      this.button("Insert", `Insert ${head ? `query ${head}` : `statement ${index + 1}`} as a new cell`, () =>
        this.newCell(cell),
      ),
    );

  private runningQuery({ query, head, sql }: RunningQuery): HTMLElement {
    const cancel = this.button("Cancel", `Cancel query ${head}`, async () => {
      const status = await this.kernel?.ask("cancel", { query });
      this.say(status === "not_cancellable" ? "This query has ended, or is not yours." : "The query was canceled.");
    });
    cancel.id = `micromegas-panel-${query}`;
    return make("li", {}, make("p", {}, head), make("pre", { tabindex: 0 }, sql), cancel);
  }

  private button(text: string, label: string, action: () => Promise<void> | void): HTMLButtonElement {
    const run = async (): Promise<void> => {
      try {
        await action();
      } catch (error) {
        this.say((error as Error).message);
      }
    };
    return makeButton(text, () => void run(), { "aria-label": label, title: label });
  }

  private async insert(sql: string): Promise<void> {
    if (!insertText(this.notebooks, sql)) await this.newCell(sql);
  }

  /** Insert a cell below the active one, or copy the text if that isn't possible. */
  private async newCell(source: string): Promise<void> {
    const event = new CustomEvent(NEW_CELL, { detail: { source }, bubbles: true, cancelable: true });
    if (!this.node.dispatchEvent(event)) {
      this.say("");
      return;
    }
    await copyText(source);
    this.say("Copied, because the notebook takes no new cell with this text.");
  }

  private say(sentence: string): void {
    if (this.message.textContent !== sentence) this.message.textContent = sentence;
  }
}

function list(label: string, items: HTMLElement[]): HTMLElement {
  return make("ul", { "aria-label": label }, ...items);
}

/** Change elements, and give the focus back to the new one with the same ID. */
function keepFocus(within: HTMLElement, change: () => void): void {
  const focused = document.activeElement;
  const id = focused && within.contains(focused) ? focused.id : "";
  change();
  if (id) document.getElementById(id)?.focus({ preventScroll: true });
}
