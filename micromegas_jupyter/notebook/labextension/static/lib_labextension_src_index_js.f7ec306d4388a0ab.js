"use strict";
(self["rspackChunkmicromegas_jupyter"] = self["rspackChunkmicromegas_jupyter"] || []).push([["lib_labextension_src_index_js"], {
"./lib/labextension/src/index.js"(__unused_rspack_module, __webpack_exports__, __webpack_require__) {
// ESM COMPAT FLAG
__webpack_require__.r(__webpack_exports__);

// EXPORTS
__webpack_require__.d(__webpack_exports__, {
  "default": () => (/* binding */ src)
});

// EXTERNAL MODULE: consume shared module (default) @jupyterlab/codemirror@^4.4.0 (strict)
var codemirror_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/codemirror");
// EXTERNAL MODULE: consume shared module (default) @jupyterlab/notebook@^4.4.0 (strict)
var notebook_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/notebook");
// EXTERNAL MODULE: consume shared module (default) @jupyterlab/rendermime@^4.4.0 (strict)
var rendermime_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/rendermime");
;// CONCATENATED MODULE: ./lib/labextension/src/cells.js
// Result widgets and the side panel request a new cell with an event, which other applications don't handle: there, the
// widget copies the text instead. The cell is inserted and never run, because its text contains values from the server.
// With another event, a result asks for an image of its chart to be saved with it.
const NEW_CELL = "micromegas:new-cell";
const FIRST = { line: 0, column: 0 };
const PICTURE = "micromegas:picture";
const SAVED = "application/vnd.micromegas.result+json";
const HTML = "text/html";
/** Also if the description contains an angle bracket, which not all browsers escape in `outerHTML`. */
const IMAGE = /^<img data-micromegas-chart(?:[^">]|"[^"]*")*>/;
const MAX_CHARACTERS = 200_000;
const MAX_IMAGE_CHARACTERS = 60_000;
const PNG = /^iVBORw0KGgo[A-Za-z0-9+/]*={0,2}$/;
/** All but the line feed: what would move a cursor, reorder a line, or end one unseen. */
// eslint-disable-next-line no-control-regex
const CONTROL_CHARACTER = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;
/** Insert a cell for each `micromegas:new-cell` event; `preventDefault` reports that it was inserted. */
function insertCells(notebooks) {
    document.addEventListener(NEW_CELL, (event) => {
        const source = event.detail?.source;
        if (typeof source !== "string" || source.length > MAX_CHARACTERS || CONTROL_CHARACTER.test(source))
            return;
        const target = event.target;
        const panel = notebooks.find((each) => each.node.contains(target)) ?? notebooks.currentWidget;
        if (panel && insertBelow(panel, target, source))
            event.preventDefault();
    });
}
/** Insert text at the cursor of the active code cell; returns false if there is no such cell. */
function insertText(notebooks, text) {
    const cell = notebooks.activeCell;
    if (!cell?.editor || cell.model.type !== "code" || cell.model.getMetadata("editable") === false)
        return false;
    if (notebooks.currentWidget?.model?.readOnly !== false || CONTROL_CHARACTER.test(text))
        return false;
    cell.editor.replaceSelection?.(text);
    cell.editor.focus();
    return true;
}
/** Insert a code cell below the one that contains the target, or else below the active one. */
function insertBelow({ content }, target, source) {
    if (!content.model || content.model.readOnly)
        return false;
    const above = content.widgets.findIndex((cell) => cell.node.contains(target));
    const index = (above < 0 ? content.activeCellIndex : above) + 1;
    content.model.sharedModel.insertCell(index, { cell_type: "code", source, metadata: { trusted: true } });
    content.deselectAll();
    content.activeCellIndex = index;
    content.mode = "edit";
    void content.scrollToItem(index);
    const cell = content.activeCell;
    // Without scrolling: at the end of a long line, its beginning would be out of sight.
    void cell?.ready.then(() => cell.editor?.setCursorPosition(cell.editor.getPositionAt(source.length) ?? FIRST, { scroll: false }));
    return true;
}
/** Save the image of a chart with each `micromegas:picture` event. */
function saveImages(notebooks) {
    document.addEventListener(PICTURE, (event) => {
        const panel = notebooks.find((each) => each.node.contains(event.target));
        if (panel)
            saveImage(panel, event);
    });
}
/** Put the image above the table that is saved: whoever reads the notebook elsewhere sees one of its MIME types. */
function saveImage(panel, event) {
    const { data, text } = event.detail;
    const target = event.target;
    const cell = panel.content.widgets.find((each) => each.node.contains(target));
    if (cell?.model.type !== "code" || typeof data !== "string" || data.length > MAX_IMAGE_CHARACTERS)
        return;
    if (!PNG.test(data))
        return;
    const image = document.createElement("img");
    image.setAttribute("data-micromegas-chart", "");
    image.alt = String(text);
    image.style.maxWidth = "100%";
    image.src = `data:image/png;base64,${data}`;
    const { model, widgets } = cell.outputArea;
    const place = widgets.findIndex((widget) => widget.node.contains(target));
    const output = place < 0 ? undefined : model.get(place);
    const table = output?.data[HTML];
    if (!output || !(SAVED in output.data) || typeof table !== "string")
        return;
    const html = image.outerHTML + table.replace(IMAGE, "");
    if (html !== table)
        output.setData({ data: { ...output.data, [HTML]: html } });
}

// EXTERNAL MODULE: consume shared module (default) @lumino/widgets@^2.7.0 (strict)
var widgets_2_7_strict_ = __webpack_require__("webpack/sharing/consume/default/@lumino/widgets");
;// CONCATENATED MODULE: ./lib/src/dom.js
// Elements are created from attributes and text, never from markup: result values must not become part of the page.
/** Create an element; an attribute that is `true` is set without a value, one that is `false` is omitted. */
function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value !== false)
            element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children);
    return element;
}
/** Create a button with an action. */
function makeButton(text, onClick, attributes = {}) {
    const button = make("button", { type: "button", ...attributes }, text);
    button.addEventListener("click", onClick);
    return button;
}
/**
 * Copy text. Pages over http from another machine have no `navigator.clipboard`, and a browser may deny it; then a
 * hidden field is copied instead. Rejects with a sentence to show if the browser allows neither.
 */
async function copyText(text) {
    try {
        await navigator.clipboard.writeText(text);
    }
    catch {
        if (!copySelected(text))
            throw new Error("The browser does not let this page copy. Open it over https, or download a file.");
    }
}
function copySelected(text) {
    const focused = document.activeElement;
    const field = make("textarea", { readonly: true, "aria-hidden": "true", tabindex: -1 });
    field.value = text;
    field.style.cssText = "position: fixed; top: 0; left: 0; opacity: 0";
    // Keeps this field's shortcuts and copy events from JupyterLab and the grid.
    for (const event of ["keydown", "copy", "focusin"])
        field.addEventListener(event, (each) => each.stopPropagation());
    document.body.append(field);
    try {
        field.select();
        // Deprecated, but the only option without a secure context.
        // eslint-disable-next-line @typescript-eslint/no-deprecated
        return document.execCommand("copy");
    }
    finally {
        field.remove();
        if (focused instanceof HTMLElement)
            focused.focus({ preventScroll: true });
    }
}

;// CONCATENATED MODULE: ./lib/labextension/src/panelKernel.js
// The side panel's questions to its half in the kernel (notebook/panel.py). The kernel registers a comm when the
// extension is loaded there, so kernels without it get no message that they don't understand.
const TARGET = "micromegas.panel";
const DEADLINE_MILLISECONDS = 30_000;
const SOON_MILLISECONDS = 2_000;
class PanelKernel {
    comm;
    /** The name of the connection that questions are about; empty for the one in use. */
    connection = "";
    // Each page hears the replies to all of them.
    next = Math.floor(Math.random() * 2 ** 40) * 1000;
    waiting = new Map();
    /** Return the panel's half in this kernel; undefined if the extension is not loaded there. */
    static async find(kernel) {
        // A busy kernel lists its comms later, but its subshell replies to a comm now.
        const listed = await inTime(kernel.requestCommInfo({ target_name: TARGET }));
        if (listed && !(listed.content.status === "ok" && TARGET in listed.content.comms))
            return undefined;
        if (kernel.hasComm(TARGET))
            return undefined;
        const found = new PanelKernel(kernel.createComm(TARGET, TARGET));
        // The type of a comm doesn't declare it.
        const { subshellStarted } = found.comm;
        if (kernel.supportsSubshells && subshellStarted)
            await inTime(subshellStarted.then(() => true));
        if (listed || (await inTime(found.ask("history"))))
            return found;
        found.close();
        return undefined;
    }
    constructor(comm) {
        this.comm = comm;
        comm.onMsg = ({ content }) => this.receive(content.data);
    }
    get isClosed() {
        return this.comm.isDisposed;
    }
    /** Leave the comm open in the kernel, for other pages. */
    close() {
        this.comm.dispose();
        for (const { timer, reject } of this.waiting.values()) {
            clearTimeout(timer);
            reject(new Error("The notebook has changed."));
        }
        this.waiting.clear();
    }
    /** Ask for something; rejects with a sentence to show. */
    async ask(op, details = {}) {
        const id = this.next++;
        const answer = await new Promise((resolve, reject) => {
            const timer = setTimeout(() => {
                this.waiting.delete(id);
                reject(new Error("The kernel is busy or does not respond. Refresh when it is idle."));
            }, DEADLINE_MILLISECONDS);
            this.waiting.set(id, { resolve, reject, timer });
            try {
                this.comm.send({ id, op, connection: this.connection, ...details });
            }
            catch {
                // A restart closes the comm; JupyterLab's error is "Cannot send".
                this.waiting.delete(id);
                clearTimeout(timer);
                reject(new Error("The kernel was restarted. Run %load_ext micromegas_jupyter again."));
            }
        });
        return answer;
    }
    receive(reply) {
        const waiting = this.waiting.get(Number(reply.id));
        if (!waiting)
            return; // another page's
        this.waiting.delete(Number(reply.id));
        clearTimeout(waiting.timer);
        if (typeof reply.error === "string")
            waiting.reject(new Error(reply.error));
        else
            waiting.resolve(reply.answer);
    }
}
/** Return what is there soon, or else undefined. */
async function inTime(found) {
    const late = new Promise((resolve) => setTimeout(() => resolve(undefined), SOON_MILLISECONDS));
    return Promise.race([found.catch(() => undefined), late]);
}

;// CONCATENATED MODULE: ./lib/labextension/src/panelStyle.js
// Colors are JupyterLab's, so that light and dark follow the theme.
const STYLE = `
.micromegas-panel {
  --soft: color-mix(in srgb, var(--jp-ui-font-color0) 75%, var(--jp-layout-color1));
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color0);
  font: 13px/1.4 var(--jp-ui-font-family);
  overflow-y: auto;
  padding: 8px;
}
.micromegas-panel [hidden] { display: none; }
.micromegas-panel :is(h2, h3) { display: inline; font-size: 13px; font-weight: 600; margin: 0; }
.micromegas-panel-bar { display: flex; justify-content: space-between; align-items: center; }
.micromegas-panel summary { cursor: pointer; padding: 3px 0; overflow-wrap: anywhere; }
.micromegas-panel-body { padding: 0 0 8px 8px; }
.micromegas-panel ul { list-style: none; margin: 4px 0; padding: 0; }
.micromegas-panel li { margin: 0 0 2px; overflow-wrap: anywhere; }
.micromegas-panel li li { margin-left: 12px; }
.micromegas-panel p { margin: 2px 0; color: var(--soft); }
.micromegas-panel-message:empty { display: none; }
.micromegas-panel-soft { color: var(--soft); font-size: 12px; }
.micromegas-panel pre {
  font: 12px/1.35 var(--jp-code-font-family);
  background: var(--jp-layout-color2);
  color: inherit;
  margin: 2px 0;
  padding: 4px;
  max-height: 8em;
  overflow: auto;
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.micromegas-panel :is(input, select) {
  box-sizing: border-box;
  width: 100%;
  font: inherit;
  color: inherit;
  background: var(--jp-layout-color0);
  border: 1px solid var(--soft);
  border-radius: 3px;
  padding: 3px 6px;
}
.micromegas-panel ::placeholder { color: var(--soft); opacity: 1; }
.micromegas-panel button {
  font: inherit;
  color: inherit;
  background: var(--jp-layout-color2);
  border: 1px solid var(--jp-border-color1);
  border-radius: 3px;
  margin: 1px 4px 1px 0;
  padding: 1px 6px;
  text-align: left;
  cursor: pointer;
}
.micromegas-panel :is(button, summary, input, select, pre):focus-visible { outline: 2px solid var(--jp-brand-color1); }
`;
const SVG = "http://www.w3.org/2000/svg";
/** A table. */
const ICON = document.createElementNS(SVG, "svg");
ICON.setAttribute("viewBox", "0 0 20 20");
ICON.setAttribute("width", "20");
ICON.style.cssText = "display: block; margin: auto";
const path = document.createElementNS(SVG, "path");
path.setAttribute("class", "jp-icon3");
path.setAttribute("fill", "#616161");
path.setAttribute("d", "M2 3h16v14H2zM4 8v3h5V8zm7 0v3h5V8zM4 13v2h5v-2zm7 0v2h5v-2z");
path.setAttribute("fill-rule", "evenodd");
ICON.append(path);

;// CONCATENATED MODULE: ./lib/labextension/src/panel.js
// The side panel: the tables of the server of the notebook in front, the history of its queries, and queries that are
// running on the server. Names, descriptions and statements come from others, so they only ever become text nodes.






const POLL_MILLISECONDS = 3_000;
const MAX_OPENED = 10;
const NO_NOTEBOOK = "Open a notebook to see the tables of its server.";
const NOT_LOADED = "Run %load_ext micromegas_jupyter in the notebook to see the tables of its server.";
class SidePanel extends widgets_2_7_strict_.Widget {
    notebooks;
    kernel;
    connecting;
    known = [];
    /** What kept a section from being loaded the last time. */
    problem = "";
    timer;
    message = make("p", { class: "micromegas-panel-message", role: "status" }, NO_NOTEBOOK);
    search = make("input", {
        type: "search",
        placeholder: "Find tables and columns",
        "aria-label": "Find tables and columns",
    });
    list = make("ul", { "aria-label": "Tables" });
    /** The connection in use, and those that `%micromegas_connect` named. */
    connection = make("select", { "aria-label": "Connection", hidden: true });
    sections;
    constructor(notebooks) {
        super();
        this.notebooks = notebooks;
        this.id = "micromegas-panel";
        this.addClass("micromegas-panel");
        this.title.caption = "Micromegas: tables and queries";
        this.title.icon = { render: (host) => host.replaceChildren(ICON.cloneNode(true)) };
        this.search.addEventListener("input", () => this.showTables());
        this.connection.addEventListener("change", () => {
            if (this.kernel)
                this.kernel.connection = this.connection.value;
            void this.refresh();
        });
        const tables = this.section("Tables", true, async (kernel) => {
            const { connection } = kernel;
            const found = await kernel.ask("tables");
            if (connection !== kernel.connection)
                return; // another one was chosen meanwhile
            this.known = found;
            this.showTables();
        });
        tables.body.append(this.search, this.list);
        const history = this.section("History", true, async (kernel) => {
            const { own, others } = await kernel.ask("history");
            const lists = [list("Queries of this notebook", own.map(this.pastQuery))];
            if (others.length)
                lists.push(make("h3", {}, "Other notebooks"), list("Other notebooks", others.map(this.pastQuery)));
            history.body.replaceChildren(...(own.length + others.length ? lists : ["No query has run in this notebook yet."]));
        });
        const running = this.section("Running on the server", false, async (kernel) => {
            const found = await kernel.ask("running");
            const items = found.map((query) => this.runningQuery(query));
            keepFocus(running.body, () => running.body.replaceChildren(items.length ? list("Running queries", items) : "No query is running on the server."));
        });
        this.sections = [tables, history, running];
        const bar = make("div", { class: "micromegas-panel-bar" }, make("h2", {}, "Micromegas"), makeButton("Refresh", () => void this.refresh()));
        this.node.append(make("style", {}, STYLE), bar, this.connection, this.message);
        this.node.append(...this.sections.map(({ root }) => root));
        notebooks.currentChanged.connect((_sender, panel) => {
            panel?.sessionContext.kernelChanged.connect(() => this.reconnect(), this);
            this.reconnect();
        });
        notebook_4_4_strict_.NotebookActions.executed.connect((_sender, { notebook }) => {
            if (notebook !== this.notebooks.currentWidget?.content || !this.isVisible)
                return;
            if (!this.kernel || this.kernel.isClosed || !this.known.length)
                void this.refresh();
            else
                void Promise.all([this.loadConnections(), this.load(history)]);
        });
    }
    onAfterShow(message) {
        super.onAfterShow(message);
        void this.refresh();
    }
    dispose() {
        clearTimeout(this.timer);
        this.kernel?.close();
        super.dispose();
    }
    section(title, open, load) {
        const body = make("div", { class: "micromegas-panel-body" });
        const root = make("details", { open }, make("summary", {}, make("h3", {}, title)), body);
        const made = { root, body, load };
        root.addEventListener("toggle", () => {
            if (root.open)
                void this.load(made);
        });
        return made;
    }
    reconnect() {
        this.kernel?.close();
        this.kernel = undefined;
        this.known = [];
        if (this.isVisible)
            void this.refresh();
    }
    async refresh() {
        await (this.connecting ??= this.connect().finally(() => (this.connecting = undefined)));
        for (const section of this.sections)
            section.root.hidden = !this.kernel;
        await this.loadConnections();
        await Promise.all(this.sections.map((section) => this.load(section)));
    }
    async loadConnections() {
        const kernel = this.kernel;
        const names = (await kernel?.ask("connections").catch(() => undefined)) ?? [];
        if (kernel !== this.kernel)
            return;
        const options = [["", "Connection in use"], ...names.map((name) => [name, name])];
        const known = [...this.connection.options].map(({ value }) => value);
        if (options.map(([value]) => value).join() !== known.join())
            this.connection.replaceChildren(...options.map(([value = "", text = ""]) => make("option", { value }, text)));
        if (kernel && !names.includes(kernel.connection))
            kernel.connection = "";
        this.connection.value = kernel?.connection ?? "";
        this.connection.hidden = !names.length;
    }
    frontKernel() {
        return this.notebooks.currentWidget?.sessionContext.session?.kernel;
    }
    async connect() {
        if (this.kernel && !this.kernel.isClosed)
            return;
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
    async load(section) {
        const kernel = this.kernel;
        if (!kernel || !section.root.open || !this.isVisible)
            return;
        try {
            await section.load(kernel);
            if (this.message.textContent === this.problem)
                this.say("");
        }
        catch (error) {
            if (this.kernel === kernel)
                this.say((this.problem = error.message));
        }
        const last = this.sections.at(-1);
        if (section !== last || this.isDisposed)
            return;
        clearTimeout(this.timer);
        this.timer = setTimeout(() => void this.load(last), POLL_MILLISECONDS);
    }
    showTables() {
        const term = this.search.value.trim().toLowerCase();
        const matches = ({ name }) => name.toLowerCase().includes(term);
        const found = this.known.flatMap((table) => {
            const columns = matches(table) ? table.columns : table.columns.filter(matches);
            return matches(table) || columns.length ? [{ ...table, columns }] : [];
        });
        const opens = term !== "" && found.length <= MAX_OPENED;
        this.list.replaceChildren(...(found.length ? found.map((table) => this.table(table, opens)) : [make("li", {}, "No table matches.")]));
    }
    table(table, opens) {
        const details = make("details", {}, make("summary", {}, table.name, make("span", { class: "micromegas-panel-soft" }, ` ${table.columns.length}`)));
        // A server may have thousands of columns: those of a closed table are not in the page.
        const fill = () => {
            if (!details.open || details.childElementCount > 1)
                return;
            const preview = () => {
                const name = this.connection.value;
                void this.newCell(`%%sql${name && ` --connection ${name}`}\nSELECT * FROM ${table.sql} LIMIT 100`);
            };
            details.append(...(table.remarks ? [make("p", {}, table.remarks)] : []), this.button("Insert name", `Insert the name ${table.name}`, () => this.insert(table.sql)), this.button("Preview", `Preview ${table.name} in a new cell`, preview), list(`Columns of ${table.name}`, table.columns.map((column) => this.column(column))));
        };
        details.addEventListener("toggle", fill);
        details.open = opens;
        return make("li", {}, details);
    }
    column(column) {
        return make("li", {}, this.button(column.name, `Insert the name ${column.name}`, () => this.insert(column.sql)), make("span", { class: "micromegas-panel-soft" }, ` ${column.type}`), ...(column.remarks ? [make("p", {}, column.remarks)] : []));
    }
    pastQuery = ({ head, sql, cell }, index) => make("li", {}, ...(head ? [make("p", {}, head)] : []), make("pre", { tabindex: 0 }, sql), this.button("Insert", `Insert ${head ? `query ${head}` : `statement ${index + 1}`} as a new cell`, () => this.newCell(cell)));
    runningQuery({ query, head, sql }) {
        const cancel = this.button("Cancel", `Cancel query ${head}`, async () => {
            const status = await this.kernel?.ask("cancel", { query });
            this.say(status === "not_cancellable" ? "This query has ended, or is not yours." : "The query was canceled.");
        });
        cancel.id = `micromegas-panel-${query}`;
        return make("li", {}, make("p", {}, head), make("pre", { tabindex: 0 }, sql), cancel);
    }
    button(text, label, action) {
        const run = async () => {
            try {
                await action();
            }
            catch (error) {
                this.say(error.message);
            }
        };
        return makeButton(text, () => void run(), { "aria-label": label, title: label });
    }
    async insert(sql) {
        if (!insertText(this.notebooks, sql))
            await this.newCell(sql);
    }
    /** Insert a cell below the active one, or copy the text if that isn't possible. */
    async newCell(source) {
        const event = new CustomEvent(NEW_CELL, { detail: { source }, bubbles: true, cancelable: true });
        if (!this.node.dispatchEvent(event)) {
            this.say("");
            return;
        }
        await copyText(source);
        this.say("Copied, because the notebook takes no new cell with this text.");
    }
    say(sentence) {
        if (this.message.textContent !== sentence)
            this.message.textContent = sentence;
    }
}
function list(label, items) {
    return make("ul", { "aria-label": label }, ...items);
}
/** Change elements, and give the focus back to the new one with the same ID. */
function keepFocus(within, change) {
    const focused = document.activeElement;
    const id = focused && within.contains(focused) ? focused.id : "";
    change();
    if (id)
        document.getElementById(id)?.focus({ preventScroll: true });
}

// EXTERNAL MODULE: consume shared module (default) @jupyterlab/outputarea@^4.4.0 (strict)
var outputarea_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/outputarea");
;// CONCATENATED MODULE: ./lib/labextension/src/saved.js
// Results, tables and the sign-in card are widgets while their kernel lives. Without it, JupyterLab shows an error
// or "Loading widget…" for ever. Here what the notebook holds as HTML is shown until the widget is in the page.


/** Marks an output that has a widget and the same as HTML. */
const saved_SAVED = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const saved_HTML = "text/html";
/** The root element of a widget in the page. */
const LIVE = '[class^="micromegas-"]';
/** ipywidgets' mark on a renderer that shows an error. */
const GIVEN_UP = "jupyter-widgets";
/** Before widgets, whose rank is -10. */
const RANK = -20;
function addSavedRenderer(common, notebooks) {
    const html = common.getFactory(saved_HTML);
    if (!html)
        return;
    // When its kernel is known, a notebook gets a renderer of widgets of its own from ipywidgets. What is rendered with
    // the common one before stays without a kernel, because ipywidgets does not look for it here.
    const isConnected = (renderers) => renderers.mimeTypes.includes(WIDGET) && renderers.getFactory(WIDGET) !== common.getFactory(WIDGET);
    const connect = async (renderers) => {
        if (isConnected(renderers))
            return true;
        await notebooks.find((panel) => panel.content.rendermime === renderers)?.sessionContext.ready;
        await new Promise((resolve) => setTimeout(resolve)); // ipywidgets has waited for the same
        return isConnected(renderers);
    };
    const createRenderer = (options) => new SavedRenderer(html.createRenderer({ ...options, mimeType: saved_HTML }), connect);
    // Safe, since what is not trusted is sanitized by the renderer of HTML and gets no widget.
    common.addFactory({ safe: true, mimeTypes: [saved_SAVED], createRenderer }, RANK);
}
class SavedRenderer extends widgets_2_7_strict_.Panel {
    saved;
    connect;
    live;
    waiting;
    widget = "";
    watch = new MutationObserver(() => this.choose());
    constructor(saved, connect) {
        super();
        this.saved = saved;
        this.connect = connect;
        this.addWidget(saved);
    }
    async renderModel(model) {
        await this.saved.renderModel(model);
        const widget = JSON.stringify(model.data[WIDGET] ?? "");
        // The same widget stays as it is: only what is saved has changed.
        if (widget === this.widget && this.isLive)
            return;
        this.widget = widget;
        this.waiting = model.trusted && WIDGET in model.data ? model : undefined;
        if (this.isAttached)
            await this.renderLive();
    }
    dispose() {
        this.watch.disconnect();
        this.saved.dispose();
        super.dispose();
    }
    onAfterAttach(message) {
        super.onAfterAttach(message);
        void this.renderLive();
    }
    async renderLive() {
        const model = this.waiting;
        const renderers = outputArea(this)?.rendermime;
        if (!model || !renderers)
            return;
        if (!(await this.connect(renderers)) || this.isDisposed || this.waiting !== model)
            return;
        this.waiting = undefined;
        if (!this.live) {
            this.live = renderers.createRenderer(WIDGET);
            this.live.hide();
            this.addWidget(this.live);
            this.watch.observe(this.live.node, { childList: true, subtree: true });
        }
        const live = this.live;
        await live.renderModel(model);
        // ipywidgets (8.1) looks for two seconds, and misses a widget that comes in the last tenth of a second.
        if (!live.isDisposed && live.hasClass(GIVEN_UP) && !this.isLive)
            await live.renderModel(model);
    }
    get isLive() {
        return this.live?.node.querySelector(LIVE) != null;
    }
    choose() {
        this.live?.setHidden(!this.isLive);
        if (this.isLive)
            this.saved.parent = null;
        else
            this.insertWidget(0, this.saved);
    }
}
/** Only the output area has the renderers of its own notebook or console, whose widgets are connected to the kernel. */
function outputArea(widget) {
    for (let parent = widget.parent; parent; parent = parent.parent) {
        if (parent instanceof outputarea_4_4_strict_.OutputArea)
            return parent;
    }
    return undefined;
}

;// CONCATENATED MODULE: ./lib/labextension/src/sql.js
// Gives cells that begin with %%sql or %%micromegas_sql the editor's SQL mode. JupyterLab knows how SQL is coloured,
// indented and commented out; the kernel's magic runs the cell.
/** DataFusion reads PostgreSQL's literals, casts and dollar quotes. */
const SQL = "text/x-pgsql";
const PYTHON = "text/x-ipython";
/** IPython finds a cell magic after empty lines and blanks; `%%sql?` asks for help. */
const SQL_MAGIC = /^\s*%%(?:micromegas_)?sql(?=\s|$)/;
/** Choose the mode of each code cell of a notebook, now and whenever its text or its mode changes. */
function followCells(panel, languages) {
    const followed = new WeakSet();
    /** The mode of each cell while it is not SQL: the notebook sets it once it knows the kernel's language. */
    const otherModes = new WeakMap();
    const wantedMode = (cell) => {
        if (SQL_MAGIC.test(cell.sharedModel.getSource()))
            return SQL;
        return cell.mimeType === SQL ? (otherModes.get(cell) ?? PYTHON) : cell.mimeType;
    };
    const chooseMode = async (cell) => {
        if (cell.mimeType !== SQL)
            otherModes.set(cell, cell.mimeType);
        if (wantedMode(cell) === cell.mimeType)
            return;
        // An editor takes the mode that was loaded last, not the one that was set last. So load both, and let the editor
        // take the other one first.
        await Promise.all([SQL, cell.mimeType].map((mode) => languages.getLanguage(mode)));
        await new Promise((resolve) => setTimeout(resolve));
        const mode = wantedMode(cell);
        if (!cell.isDisposed && mode !== cell.mimeType)
            cell.mimeType = mode;
    };
    const follow = (cell) => {
        if (cell.type !== "code" || followed.has(cell))
            return;
        followed.add(cell);
        cell.sharedModel.changed.connect(() => void chooseMode(cell));
        cell.mimeTypeChanged.connect(() => void chooseMode(cell));
        void chooseMode(cell);
    };
    const followAll = () => panel.content.widgets.forEach((cell) => follow(cell.model));
    panel.content.modelContentChanged.connect(followAll);
    void panel.context.ready.then(followAll);
}

;// CONCATENATED MODULE: ./lib/labextension/src/index.js







// Applications without notebooks, such as Voila, log an error for each plug-in that requires a tracker.
const cells = {
    id: "micromegas-jupyter:cells",
    description: "SQL mode in %%sql cells, new cells from a result, and images of its charts in the saved notebook.",
    autoStart: true,
    optional: [notebook_4_4_strict_.INotebookTracker, codemirror_4_4_strict_.IEditorLanguageRegistry],
    activate: (_app, notebooks, languages) => {
        if (!notebooks)
            return;
        insertCells(notebooks);
        saveImages(notebooks);
        if (languages)
            notebooks.widgetAdded.connect((_sender, panel) => followCells(panel, languages));
    },
};
const src_saved = {
    id: "micromegas-jupyter:saved",
    description: "Results, tables and sign-ins that can be read without a kernel.",
    autoStart: true,
    optional: [rendermime_4_4_strict_.IRenderMimeRegistry, notebook_4_4_strict_.INotebookTracker],
    activate: (_app, renderers, notebooks) => {
        // Without notebooks, in Voila, there is always a kernel, and it shows widgets itself.
        if (renderers && notebooks)
            addSavedRenderer(renderers, notebooks);
    },
};
const src_panel = {
    id: "micromegas-jupyter:panel",
    description: "Tables and queries of the notebook's server, in the left sidebar.",
    autoStart: true,
    optional: [notebook_4_4_strict_.INotebookTracker],
    activate: (app, notebooks) => {
        if (notebooks)
            app.shell.add(new SidePanel(notebooks), "left", { rank: 600 });
    },
};
/* export default */ const src = ([cells, src_saved, src_panel]);


},

}]);