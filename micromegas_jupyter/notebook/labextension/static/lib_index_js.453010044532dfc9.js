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
// Result widgets and the side panel request a new cell with an event, which other applications don't handle: there, the
// widget copies the text instead. The cell is inserted and never run, because its text contains values from the server.
const NEW_CELL = "micromegas:new-cell";
const MAX_CHARACTERS = 200_000;
/** Except line feed: a carriage return could hide the rest of a line. */
const CONTROL_CHARACTER = /(?!\n)\p{Cc}/u;
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
    return true;
}

// EXTERNAL MODULE: consume shared module (default) @jupyterlab/outputarea@^4.4.0 (strict)
var outputarea_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/outputarea");
// EXTERNAL MODULE: consume shared module (default) @lumino/widgets@^2.7.0 (strict)
var widgets_2_7_strict_ = __webpack_require__("webpack/sharing/consume/default/@lumino/widgets");
;// CONCATENATED MODULE: ./lib/saved.js
// Results, tables and the sign-in card are widgets while their kernel lives. Without it, JupyterLab shows an error
// or "Loading widget…" for ever. Here what the notebook holds as HTML is shown until the widget is in the page.


/** Marks an output that has a widget and the same as HTML. */
const SAVED = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const HTML = "text/html";
const PNG = "image/png";
/** A result's widget dispatches this with its chart as base64; the notebook saves it beside the table. */
const PICTURE = "micromegas:picture";
const MAX_PICTURE_BYTES = 60_000;
const PNG_SIGNATURE = "\x89PNG\r\n\x1a\n";
const LIVE = ".micromegas-grid, .micromegas-tables, .micromegas-card";
/** ipywidgets' mark on a renderer that shows an error. */
const GIVEN_UP = "jupyter-widgets";
/** Before widgets, whose rank is -10. */
const RANK = -20;
function addSavedRenderer(common, notebooks) {
    const html = common.getFactory(HTML);
    if (!html)
        return;
    // When its kernel is known, a notebook gets a renderer of widgets of its own from ipywidgets. What is rendered with
    // the common one before stays without a kernel, because ipywidgets does not look for it here.
    const isConnected = (renderers) => renderers.mimeTypes.includes(WIDGET) && renderers.getFactory(WIDGET) !== common.getFactory(WIDGET);
    const connect = async (renderers) => {
        if (isConnected(renderers))
            return true;
        await notebooks?.find((panel) => panel.content.rendermime === renderers)?.sessionContext.ready;
        await new Promise((resolve) => setTimeout(resolve)); // ipywidgets has waited for the same
        return isConnected(renderers);
    };
    const createRenderer = (options) => new SavedRenderer(html.createRenderer({ ...options, mimeType: HTML }), connect);
    // Safe, since what is not trusted is sanitized by the renderer of HTML and gets no widget.
    common.addFactory({ safe: true, mimeTypes: [SAVED], createRenderer }, RANK);
}
class SavedRenderer extends widgets_2_7_strict_.Panel {
    saved;
    connect;
    live;
    model;
    waiting;
    widget = "";
    /** The chart above the table, while there is no widget. */
    picture = new widgets_2_7_strict_.Widget();
    watch = new MutationObserver(() => this.choose());
    constructor(saved, connect) {
        super();
        this.saved = saved;
        this.connect = connect;
        this.addWidget(this.picture);
        this.addWidget(saved);
        this.node.addEventListener(PICTURE, (event) => {
            const data = event.detail?.data;
            const model = this.model;
            if (!model || !isPicture(data) || model.data[PNG] === data)
                return;
            event.preventDefault();
            model.setData({ data: { ...model.data, [PNG]: data } });
        });
    }
    async renderModel(model) {
        this.model = model;
        const picture = model.data[PNG];
        this.picture.node.replaceChildren(...(isPicture(picture) ? [saved_image(picture)] : []));
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
        this.picture.setHidden(this.isLive);
        if (this.isLive)
            this.saved.parent = null;
        else
            this.insertWidget(1, this.saved);
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
function isPicture(data) {
    if (typeof data !== "string" || data.length > MAX_PICTURE_BYTES * 2)
        return false;
    try {
        const bytes = atob(data);
        return bytes.startsWith(PNG_SIGNATURE) && bytes.length <= MAX_PICTURE_BYTES;
    }
    catch {
        return false;
    }
}
function saved_image(data) {
    const element = document.createElement("img");
    element.alt = "Chart of the rows";
    element.src = `data:${PNG};base64,${data}`;
    element.style.maxWidth = "100%";
    return element;
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






// Applications without notebooks, such as Voila, log an error for each plug-in that requires a tracker.
const cells = {
    id: "micromegas-jupyter:cells",
    description: "SQL mode in %%sql cells, and new cells that results request.",
    autoStart: true,
    optional: [notebook_4_4_strict_.INotebookTracker, codemirror_4_4_strict_.IEditorLanguageRegistry],
    activate: (_app, notebooks, languages) => {
        if (!notebooks)
            return;
        insertCells(notebooks);
        if (languages)
            notebooks.widgetAdded.connect((_sender, panel) => followCells(panel, languages));
    },
};
const lib_saved = {
    id: "micromegas-jupyter:saved",
    description: "Results, tables and sign-ins that can be read without a kernel.",
    autoStart: true,
    optional: [rendermime_4_4_strict_.IRenderMimeRegistry, notebook_4_4_strict_.INotebookTracker],
    activate: (_app, renderers, notebooks) => {
        if (renderers)
            addSavedRenderer(renderers, notebooks);
    },
};
/* export default */ const lib = ([cells, lib_saved]);


},

}]);