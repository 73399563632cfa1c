"use strict";
(self["rspackChunkmicromegas_jupyter"] = self["rspackChunkmicromegas_jupyter"] || []).push([["lib_index_js"], {
"./lib/index.js"(__unused_rspack_module, __webpack_exports__, __webpack_require__) {
// ESM COMPAT FLAG
__webpack_require__.r(__webpack_exports__);

// EXPORTS
__webpack_require__.d(__webpack_exports__, {
  "default": () => (/* binding */ lib)
});

// EXTERNAL MODULE: consume shared module (default) @jupyterlab/codemirror@^4.4.0 (strict)
var codemirror_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/codemirror");
// EXTERNAL MODULE: consume shared module (default) @jupyterlab/notebook@^4.4.0 (strict)
var notebook_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/notebook");
// EXTERNAL MODULE: consume shared module (default) @jupyterlab/rendermime@^4.4.0 (strict)
var rendermime_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/rendermime");
;// CONCATENATED MODULE: ./lib/cells.js
// What a result's widget asks of the notebook around it: a new cell, which is inserted and never run, and an image to
// save with the result. A widget cannot reach the notebook by itself.

const SAVED = "application/vnd.micromegas.result+json";
const HTML = "text/html";
const IMAGE = /^<img data-micromegas-chart[^>]*>/;
const MAX_SOURCE_CHARACTERS = 200_000;
const MAX_IMAGE_CHARACTERS = 60_000;
/** All but the line feed: what would move a cursor, reorder a line, or end one unseen. */
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;
function followResults(notebooks) {
    notebooks.widgetAdded.connect((_sender, panel) => {
        panel.node.addEventListener("micromegas:new-cell", (event) => insertCell(panel, event));
        panel.node.addEventListener("micromegas:picture", (event) => saveImage(panel, event));
    });
}
function insertCell(panel, event) {
    const { source } = event.detail;
    const at = cellOf(panel, event);
    if (at < 0 || typeof source !== "string" || source.length > MAX_SOURCE_CHARACTERS || CONTROL.test(source))
        return;
    event.preventDefault(); // the widget need not copy it
    const notebook = panel.content;
    notebook.activeCellIndex = at;
    notebook_4_4_strict_.NotebookActions.insertBelow(notebook);
    notebook.activeCell?.model.sharedModel.setSource(source);
    void notebook_4_4_strict_.NotebookActions.focusActiveCell(notebook);
}
/** Put the image above the table that is saved: whoever reads the notebook elsewhere sees one of its MIME types. */
function saveImage(panel, event) {
    const { data, text } = event.detail;
    const cell = panel.content.widgets[cellOf(panel, event)];
    if (cell?.model.type !== "code" || typeof data !== "string" || data.length > MAX_IMAGE_CHARACTERS)
        return;
    const image = document.createElement("img");
    image.setAttribute("data-micromegas-chart", "");
    image.alt = String(text);
    image.style.maxWidth = "100%";
    image.src = `data:image/png;base64,${data}`;
    const { model, widgets } = cell.outputArea;
    const place = widgets.findIndex((widget) => widget.node.contains(event.target));
    const output = place < 0 ? undefined : model.get(place);
    const table = output?.data[HTML];
    if (!output || !(SAVED in output.data) || typeof table !== "string")
        return;
    const html = image.outerHTML + table.replace(IMAGE, "");
    if (html !== table)
        output.setData({ data: { ...output.data, [HTML]: html } });
}
function cellOf(panel, event) {
    return panel.content.widgets.findIndex((cell) => cell.node.contains(event.target));
}

// EXTERNAL MODULE: consume shared module (default) @jupyterlab/outputarea@^4.4.0 (strict)
var outputarea_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/outputarea");
// EXTERNAL MODULE: consume shared module (default) @lumino/widgets@^2.7.0 (strict)
var widgets_2_7_strict_ = __webpack_require__("webpack/sharing/consume/default/@lumino/widgets");
;// CONCATENATED MODULE: ./lib/saved.js
// Results, tables and the sign-in card are widgets while their kernel lives. Without it, JupyterLab shows an error
// or "Loading widget…" for ever. Here what the notebook holds as HTML is shown until the widget is in the page.


/** Marks an output that has a widget and the same as HTML. */
const saved_SAVED = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const saved_HTML = "text/html";
const LIVE = ".micromegas-grid, .micromegas-tables, .micromegas-card";
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

;// CONCATENATED MODULE: ./lib/sql.js
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

;// CONCATENATED MODULE: ./lib/index.js






const sqlMode = {
    id: "micromegas-jupyter:sql-mode",
    description: "SQL mode in %%sql cells.",
    autoStart: true,
    requires: [notebook_4_4_strict_.INotebookTracker, codemirror_4_4_strict_.IEditorLanguageRegistry],
    activate: (_app, notebooks, languages) => {
        notebooks.widgetAdded.connect((_sender, panel) => followCells(panel, languages));
    },
};
const lib_saved = {
    id: "micromegas-jupyter:saved",
    description: "Results, tables and sign-ins that can be read without a kernel.",
    autoStart: true,
    requires: [rendermime_4_4_strict_.IRenderMimeRegistry, notebook_4_4_strict_.INotebookTracker],
    activate: (_app, renderers, notebooks) => addSavedRenderer(renderers, notebooks),
};
const cells = {
    id: "micromegas-jupyter:cells",
    description: "New cells from a result, and images of its charts in the saved notebook.",
    autoStart: true,
    requires: [notebook_4_4_strict_.INotebookTracker],
    activate: (_app, notebooks) => followResults(notebooks),
};
/* export default */ const lib = ([sqlMode, lib_saved, cells]);


},

}]);