import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IEditorLanguageRegistry } from "@jupyterlab/codemirror";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";

import { followResults } from "./cells";
import { addSavedRenderer } from "./saved";
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

const saved: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:saved",
  description: "Results, tables and sign-ins that can be read without a kernel.",
  autoStart: true,
  requires: [IRenderMimeRegistry, INotebookTracker],
  activate: (_app, renderers: IRenderMimeRegistry, notebooks: INotebookTracker) =>
    addSavedRenderer(renderers, notebooks),
};

const cells: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:cells",
  description: "New cells from a result, and images of its charts in the saved notebook.",
  autoStart: true,
  requires: [INotebookTracker],
  activate: (_app, notebooks: INotebookTracker) => followResults(notebooks),
};

export default [sqlMode, saved, cells];
