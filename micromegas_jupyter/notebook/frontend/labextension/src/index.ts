import type { JupyterFrontEndPlugin } from "@jupyterlab/application";
import { IEditorLanguageRegistry } from "@jupyterlab/codemirror";
import { INotebookTracker } from "@jupyterlab/notebook";
import { IRenderMimeRegistry } from "@jupyterlab/rendermime";

import { insertCells, saveImages } from "./cells";
import { SidePanel } from "./panel";
import { addSavedRenderer } from "./saved";
import { followCells } from "./sql";

// Applications without notebooks, such as Voila, log an error for each plug-in that requires a tracker.
const cells: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:cells",
  description: "SQL mode in %%sql cells, new cells from a result, and images of its charts in the saved notebook.",
  autoStart: true,
  optional: [INotebookTracker, IEditorLanguageRegistry],
  activate: (_app, notebooks: INotebookTracker | null, languages: IEditorLanguageRegistry | null) => {
    if (!notebooks) return;
    insertCells(notebooks);
    saveImages(notebooks);
    if (languages) notebooks.widgetAdded.connect((_sender, panel) => followCells(panel, languages));
  },
};

const saved: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:saved",
  description: "Results, tables and sign-ins that can be read without a kernel.",
  autoStart: true,
  optional: [IRenderMimeRegistry, INotebookTracker],
  activate: (_app, renderers: IRenderMimeRegistry | null, notebooks: INotebookTracker | null) => {
    // Without notebooks, in Voila, there is always a kernel, and it shows widgets itself.
    if (renderers && notebooks) addSavedRenderer(renderers, notebooks);
  },
};

const panel: JupyterFrontEndPlugin<void> = {
  id: "micromegas-jupyter:panel",
  description: "Tables and queries of the notebook's server, in the left sidebar.",
  autoStart: true,
  optional: [INotebookTracker],
  activate: (app, notebooks: INotebookTracker | null) => {
    if (notebooks) app.shell.add(new SidePanel(notebooks), "left", { rank: 600 });
  },
};

export default [cells, saved, panel];
