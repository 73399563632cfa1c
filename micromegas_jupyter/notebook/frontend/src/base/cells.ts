// New cells from a widget. The JupyterLab extension inserts the cell and never runs it; other applications don't
// handle the event, and the source is copied instead.

import { copyText } from "../dom";

/** Insert a cell below the one that contains the element, or copy its source; returns whether it was inserted. */
export async function insertCell(element: Element, source: string): Promise<boolean> {
  const options = { bubbles: true, cancelable: true, composed: true, detail: { source } };
  if (!element.dispatchEvent(new CustomEvent("micromegas:new-cell", options))) return true;
  await copyText(source);
  return false;
}

export const TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/i;

/** Insert a cell that shows a trace; returns a sentence to show. */
export async function openTrace(element: Element, traceId: string): Promise<string> {
  const isInserted = await insertCell(element, `%micromegas_trace ${traceId}`);
  return isInserted ? "Written into a new cell." : "Copied. Paste it into a new cell.";
}

/** Keep JupyterLab from running its shortcuts (`d d` deletes a cell) for keys pressed within an element. */
export function suppressShortcuts(root: HTMLElement): void {
  // JupyterLab leaves keys to a focused element that declares so; some shortcuts ignore this.
  root.addEventListener("focusin", (event) =>
    (event.target as Element).setAttribute("data-lm-suppress-shortcuts", "true"),
  );
  // Except for saving: the page receives that event again, from outside the element.
  root.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
    if (root.parentElement?.dispatchEvent(new KeyboardEvent(event.type, event)) !== false) return;
    event.preventDefault();
    event.stopPropagation();
  });
}
