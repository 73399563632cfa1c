import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IEditorLanguageRegistry } from "@jupyterlab/codemirror";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";

import { addResultRenderer } from "./result";
import { followCells } from "./sql";

const sqlMode: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:sql-mode",
  description: "SQL mode in %%sql cells.",
  autoStart: true,
  requires: [INotebookTracker, IEditorLanguageRegistry],
  activate: (_app, notebooks: INotebookTracker, languages: IEditorLanguageRegistry) => {
    notebooks.widgetAdded.connect((_sender, panel) => followCells(panel, languages));
  },
};

const result: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:result",
  description: "Query results that can be read without a kernel.",
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (_app, renderers: IRenderMimeRegistry) => addResultRenderer(renderers),
};

export default [sqlMode, result];
