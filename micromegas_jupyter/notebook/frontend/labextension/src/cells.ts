// Result widgets and the side panel request a new cell with an event, which other applications don't handle: there, the
// widget copies the text instead. The cell is inserted and never run, because its text contains values from the server.

import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";

export const NEW_CELL = "micromegas:new-cell";
const FIRST = { line: 0, column: 0 };
const MAX_CHARACTERS = 200_000;
/** Except line feed: a carriage return could hide the rest of a line. */
const CONTROL_CHARACTER = /(?!\n)\p{Cc}/u;

/** Insert a cell for each `micromegas:new-cell` event; `preventDefault` reports that it was inserted. */
export function insertCells(notebooks: INotebookTracker): void {
  document.addEventListener(NEW_CELL, (event) => {
    const source = (event as CustomEvent<{ source?: unknown } | null>).detail?.source;
    if (typeof source !== "string" || source.length > MAX_CHARACTERS || CONTROL_CHARACTER.test(source)) return;
    const target = event.target as Node;
    const panel = notebooks.find((each) => each.node.contains(target)) ?? notebooks.currentWidget;
    if (panel && insertBelow(panel, target, source)) event.preventDefault();
  });
}

/** Insert text at the cursor of the active code cell; returns false if there is no such cell. */
export function insertText(notebooks: INotebookTracker, text: string): boolean {
  const cell = notebooks.activeCell;
  if (!cell?.editor || cell.model.type !== "code" || cell.model.getMetadata("editable") === false) return false;
  if (notebooks.currentWidget?.model?.readOnly !== false || CONTROL_CHARACTER.test(text)) return false;
  cell.editor.replaceSelection?.(text);
  cell.editor.focus();
  return true;
}

/** Insert a code cell below the one that contains the target, or else below the active one. */
function insertBelow({ content }: NotebookPanel, target: Node, source: string): boolean {
  if (!content.model || content.model.readOnly) return false;
  const above = content.widgets.findIndex((cell) => cell.node.contains(target));
  const index = (above < 0 ? content.activeCellIndex : above) + 1;
  content.model.sharedModel.insertCell(index, { cell_type: "code", source, metadata: { trusted: true } });
  content.deselectAll();
  content.activeCellIndex = index;
  content.mode = "edit";
  void content.scrollToItem(index);
  const cell = content.activeCell;
  void cell?.ready.then(() => cell.editor?.setCursorPosition(cell.editor.getPositionAt(source.length) ?? FIRST));
  return true;
}
