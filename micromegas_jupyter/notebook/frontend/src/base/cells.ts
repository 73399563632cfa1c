// New cells from a widget. The extension of JupyterLab inserts the cell and never runs it; other applications don't
// handle the event, and the source is copied instead.

import { copyText } from "../dom";

/** Insert a cell below the one that contains the element, or copy its source; returns whether it was inserted. */
export async function insertCell(element: Element, source: string): Promise<boolean> {
  const options = { bubbles: true, cancelable: true, composed: true, detail: { source } };
  if (!element.dispatchEvent(new CustomEvent("micromegas:new-cell", options))) return true;
  await copyText(source);
  return false;
}

/** Keep JupyterLab from running its shortcuts (`d d` deletes a cell) for keys pressed within an element. */
export function suppressShortcuts(root: HTMLElement): void {
  // JupyterLab leaves keys to the element with the focus when that says so; some shortcuts look no further.
  root.addEventListener("focusin", (event) =>
    (event.target as Element).setAttribute("data-lm-suppress-shortcuts", "true"),
  );
}
