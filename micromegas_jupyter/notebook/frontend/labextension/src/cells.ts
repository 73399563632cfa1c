// What a result's widget asks of the notebook around it: a new cell, which is inserted and never run, and an image to
// save with the result. A widget cannot reach the notebook by itself.

import type { OutputArea } from "@jupyterlab/outputarea";
import { NotebookActions, type INotebookTracker, type NotebookPanel } from "@jupyterlab/notebook";

const SAVED = "application/vnd.micromegas.result+json";
const HTML = "text/html";
const IMAGE = /^<img data-micromegas-chart[^>]*>/;
const MAX_SOURCE_CHARACTERS = 200_000;
const MAX_IMAGE_CHARACTERS = 60_000;
/** All but the line feed: what would move a cursor, reorder a line, or end one unseen. */
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

export function followResults(notebooks: INotebookTracker): void {
  notebooks.widgetAdded.connect((_sender, panel) => {
    panel.node.addEventListener("micromegas:new-cell", (event) => insertCell(panel, event as CustomEvent<unknown>));
    panel.node.addEventListener("micromegas:picture", (event) => saveImage(panel, event as CustomEvent<unknown>));
  });
}

function insertCell(panel: NotebookPanel, event: CustomEvent<unknown>): void {
  const { source } = event.detail as { source?: unknown };
  const at = cellOf(panel, event);
  if (at < 0 || typeof source !== "string" || source.length > MAX_SOURCE_CHARACTERS || CONTROL.test(source)) return;
  event.preventDefault(); // the widget need not copy it
  const notebook = panel.content;
  notebook.activeCellIndex = at;
  NotebookActions.insertBelow(notebook);
  notebook.activeCell?.model.sharedModel.setSource(source);
  void NotebookActions.focusActiveCell(notebook);
}

/** Put the image above the table that is saved: whoever reads the notebook elsewhere sees one of its MIME types. */
function saveImage(panel: NotebookPanel, event: CustomEvent<unknown>): void {
  const { data, text } = event.detail as { data?: unknown; text?: unknown };
  const cell = panel.content.widgets[cellOf(panel, event)];
  if (cell?.model.type !== "code" || typeof data !== "string" || data.length > MAX_IMAGE_CHARACTERS) return;
  const image = document.createElement("img");
  image.setAttribute("data-micromegas-chart", "");
  image.alt = String(text);
  image.style.maxWidth = "100%";
  image.src = `data:image/png;base64,${data}`;
  const { model, widgets } = (cell as unknown as { outputArea: OutputArea }).outputArea;
  const place = widgets.findIndex((widget) => widget.node.contains(event.target as Node));
  const output = place < 0 ? undefined : model.get(place);
  const table = output?.data[HTML];
  if (!output || !(SAVED in output.data) || typeof table !== "string") return;
  const html = image.outerHTML + table.replace(IMAGE, "");
  if (html !== table) output.setData({ data: { ...output.data, [HTML]: html } });
}

function cellOf(panel: NotebookPanel, event: Event): number {
  return panel.content.widgets.findIndex((cell) => cell.node.contains(event.target as Node));
}
