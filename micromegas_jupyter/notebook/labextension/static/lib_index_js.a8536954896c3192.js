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
// EXTERNAL MODULE: consume shared module (default) @jupyterlab/outputarea@^4.4.0 (strict)
var outputarea_4_4_strict_ = __webpack_require__("webpack/sharing/consume/default/@jupyterlab/outputarea");
// EXTERNAL MODULE: consume shared module (default) @lumino/widgets@^2.7.0 (strict)
var widgets_2_7_strict_ = __webpack_require__("webpack/sharing/consume/default/@lumino/widgets");
;// CONCATENATED MODULE: ./lib/result.js
// A query's result is a widget while its kernel lives. Without a kernel, JupyterLab alone shows "Loading widget…" for
// ever. Here the table that the notebook holds as HTML is shown until the widget is in the page.


/** Marks an output that has a widget and the same table as HTML. */
const RESULT = "application/vnd.micromegas.result+json";
const WIDGET = "application/vnd.jupyter.widget-view+json";
const HTML = "text/html";
const GRID = ".micromegas-grid";
/** Before widgets, whose rank is -10. */
const RANK = -20;
function addResultRenderer(renderers) {
    const html = renderers.getFactory(HTML);
    if (!html)
        return;
    const createRenderer = (options) => new ResultRenderer(html.createRenderer({ ...options, mimeType: HTML }));
    // Safe, since what is not trusted is sanitized by the renderer of HTML and gets no widget.
    renderers.addFactory({ safe: true, mimeTypes: [RESULT], createRenderer }, RANK);
}
class ResultRenderer extends widgets_2_7_strict_.Panel {
    saved;
    live;
    waiting;
    watch = new MutationObserver(() => this.choose());
    constructor(saved) {
        super();
        this.saved = saved;
        this.addWidget(saved);
    }
    async renderModel(model) {
        await this.saved.renderModel(model);
        this.waiting = model.trusted && WIDGET in model.data ? model : undefined;
        if (this.isAttached)
            this.renderLive();
    }
    dispose() {
        this.watch.disconnect();
        super.dispose();
    }
    onAfterAttach(message) {
        super.onAfterAttach(message);
        this.renderLive();
    }
    renderLive() {
        const model = this.waiting;
        const renderers = outputArea(this)?.rendermime;
        if (!model || !renderers?.mimeTypes.includes(WIDGET))
            return;
        this.waiting = undefined;
        if (!this.live) {
            this.live = renderers.createRenderer(WIDGET);
            this.live.hide();
            this.addWidget(this.live);
            this.watch.observe(this.live.node, { childList: true, subtree: true });
        }
        void this.live.renderModel(model);
    }
    choose() {
        const isLive = this.live?.node.querySelector(GRID) != null;
        this.live?.setHidden(!isLive);
        this.saved.setHidden(isLive);
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
const result = {
    id: "micromegas-jupyter:result",
    description: "Query results that can be read without a kernel.",
    autoStart: true,
    requires: [rendermime_4_4_strict_.IRenderMimeRegistry],
    activate: (_app, renderers) => addResultRenderer(renderers),
};
/* export default */ const lib = ([sqlMode, result]);


},

}]);