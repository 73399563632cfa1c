// Gives cells that begin with %%sql or %%micromegas_sql the editor's SQL mode, in JupyterLab and Jupyter Notebook.
// A module-federation container written by hand, so that no build step stands between this file and what runs.
// How SQL is coloured, indented and commented out is JupyterLab's; what runs the cell is the kernel's magic.

(() => {
  const NAME = "micromegas-jupyter";
  // DataFusion reads PostgreSQL's literals, casts and dollar quotes.
  const SQL = "text/x-pgsql";
  const PYTHON = "text/x-ipython";
  // IPython looks for a cell magic behind empty lines and blanks; `%%sql?` asks for help.
  const IS_SQL = /^\s*%%(?:micromegas_)?sql(?=\s|$)/;

  let scope;

  // The host's own copy of a package: one that it has loaded, else any that it offers.
  async function hostModule(name) {
    const offers = Object.values(scope[name]);
    const offer = offers.find(({ loaded }) => loaded) ?? offers[0];
    return (await offer.get())();
  }

  async function buildPlugin() {
    const [{ INotebookTracker }, { IEditorLanguageRegistry }] = await Promise.all(
      ["@jupyterlab/notebook", "@jupyterlab/codemirror"].map(hostModule),
    );
    return {
      id: `${NAME}:sql-mode`,
      description: "SQL mode in %%sql cells.",
      autoStart: true,
      requires: [INotebookTracker, IEditorLanguageRegistry],
      activate: (_app, notebooks, languages) => {
        const follow = followCells(languages);
        notebooks.widgetAdded.connect((_sender, panel) => {
          const followAll = () => panel.content.widgets.forEach((cell) => follow(cell.model));
          panel.content.modelContentChanged.connect(followAll);
          panel.context.ready.then(followAll);
        });
      },
    };
  }

  function followCells(languages) {
    const followed = new WeakSet();
    // What each cell's mode is when it is no SQL: the notebook sets it when it learns of its kernel.
    const modes = new WeakMap();

    function wantedMode(model) {
      if (IS_SQL.test(model.sharedModel.getSource())) return SQL;
      return model.mimeType === SQL ? (modes.get(model) ?? PYTHON) : model.mimeType;
    }

    async function choose(model) {
      if (model.mimeType !== SQL) modes.set(model, model.mimeType);
      if (wantedMode(model) === model.mimeType) return;
      // An editor takes whichever mode has loaded last, not the one that was set last: both are there first.
      await Promise.all([SQL, model.mimeType].map((mode) => languages.getLanguage(mode)));
      await new Promise((resume) => setTimeout(resume));
      if (model.isDisposed) return;
      const mode = wantedMode(model);
      if (mode !== model.mimeType) model.mimeType = mode;
    }

    return (model) => {
      if (model.type !== "code" || followed.has(model)) return;
      followed.add(model);
      model.sharedModel.changed.connect(() => choose(model));
      model.mimeTypeChanged.connect(() => choose(model));
      choose(model);
    };
  }

  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB[NAME] = {
    init: (shared) => {
      scope = shared;
    },
    get: async (module) => {
      if (module !== "./extension") throw new Error(`${NAME} has no ${module}`);
      const plugin = await buildPlugin();
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
