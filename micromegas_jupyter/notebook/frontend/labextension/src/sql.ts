// Gives cells that begin with %%sql or %%micromegas_sql the editor's SQL mode. JupyterLab knows how SQL is coloured,
// indented and commented out; the kernel's magic runs the cell.

import type { IEditorLanguageRegistry } from "@jupyterlab/codemirror";
import type { NotebookPanel } from "@jupyterlab/notebook";

type CellModel = NotebookPanel["content"]["widgets"][number]["model"];

/** DataFusion reads PostgreSQL's literals, casts and dollar quotes. */
const SQL = "text/x-pgsql";
const PYTHON = "text/x-ipython";
/** IPython finds a cell magic after empty lines and blanks; `%%sql?` asks for help. */
const SQL_MAGIC = /^\s*%%(?:micromegas_)?sql(?=\s|$)/;

/** Choose the mode of each code cell of a notebook, now and whenever its text or its mode changes. */
export function followCells(panel: NotebookPanel, languages: IEditorLanguageRegistry): void {
  const followed = new WeakSet<CellModel>();
  /** The mode of each cell while it is not SQL: the notebook sets it once it knows the kernel's language. */
  const otherModes = new WeakMap<CellModel, string>();

  const wantedMode = (cell: CellModel): string => {
    if (SQL_MAGIC.test(cell.sharedModel.getSource())) return SQL;
    return cell.mimeType === SQL ? (otherModes.get(cell) ?? PYTHON) : cell.mimeType;
  };
  const chooseMode = async (cell: CellModel): Promise<void> => {
    if (cell.mimeType !== SQL) otherModes.set(cell, cell.mimeType);
    if (wantedMode(cell) === cell.mimeType) return;
    // An editor takes the mode that was loaded last, not the one that was set last. So load both, and let the editor
    // take the other one first.
    await Promise.all([SQL, cell.mimeType].map((mode) => languages.getLanguage(mode)));
    await new Promise((resolve) => setTimeout(resolve));
    const mode = wantedMode(cell);
    if (!cell.isDisposed && mode !== cell.mimeType) cell.mimeType = mode;
  };
  const follow = (cell: CellModel): void => {
    if (cell.type !== "code" || followed.has(cell)) return;
    followed.add(cell);
    cell.sharedModel.changed.connect(() => void chooseMode(cell));
    cell.mimeTypeChanged.connect(() => void chooseMode(cell));
    void chooseMode(cell);
  };
  const followAll = (): void => panel.content.widgets.forEach((cell) => follow(cell.model));
  panel.content.modelContentChanged.connect(followAll);
  void panel.context.ready.then(followAll);
}
