// Result widgets and the side panel request a new cell with an event, which other applications don't handle: there, the
// widget copies the text instead. The cell is inserted and never run, because its text contains values from the server.
// With another event, a result asks for an image of its chart to be saved with it.

import type { INotebookTracker, NotebookPanel } from "@jupyterlab/notebook";
import type { OutputArea } from "@jupyterlab/outputarea";

export const NEW_CELL = "micromegas:new-cell";
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
  // Without scrolling: at the end of a long line, its beginning would be out of sight.
  void cell?.ready.then(() =>
    cell.editor?.setCursorPosition(cell.editor.getPositionAt(source.length) ?? FIRST, { scroll: false }),
  );
  return true;
}

/** Save the image of a chart with each `micromegas:picture` event. */
export function saveImages(notebooks: INotebookTracker): void {
  document.addEventListener(PICTURE, (event) => {
    const panel = notebooks.find((each) => each.node.contains(event.target as Node));
    if (panel) saveImage(panel, event as CustomEvent<unknown>);
  });
}

/** Put the image above the table that is saved: whoever reads the notebook elsewhere sees one of its MIME types. */
function saveImage(panel: NotebookPanel, event: CustomEvent<unknown>): void {
  const { data, text } = event.detail as { data?: unknown; text?: unknown };
  const target = event.target as Node;
  const cell = panel.content.widgets.find((each) => each.node.contains(target));
  if (cell?.model.type !== "code" || typeof data !== "string" || data.length > MAX_IMAGE_CHARACTERS) return;
  if (!PNG.test(data)) return;
  const image = document.createElement("img");
  image.setAttribute("data-micromegas-chart", "");
  image.alt = String(text);
  image.style.maxWidth = "100%";
  image.src = `data:image/png;base64,${data}`;
  const { model, widgets } = (cell as unknown as { outputArea: OutputArea }).outputArea;
  const place = widgets.findIndex((widget) => widget.node.contains(target));
  const output = place < 0 ? undefined : model.get(place);
  const table = output?.data[HTML];
  if (!output || !(SAVED in output.data) || typeof table !== "string") return;
  const html = image.outerHTML + table.replace(IMAGE, "");
  if (html !== table) output.setData({ data: { ...output.data, [HTML]: html } });
}
