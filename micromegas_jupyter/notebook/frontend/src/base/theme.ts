const ATTRIBUTES = ["class", "data-jp-theme-light", "data-jp-theme-name", "data-theme", "data-vscode-theme-kind"];

/** Draw a canvas again when the page's theme changes; returns a function that stops this. */
export function watchTheme(draw: () => void): () => void {
  // JupyterLab hides the page until the next frame, so nothing has a size before.
  const observer = new MutationObserver(() => requestAnimationFrame(() => setTimeout(draw)));
  observer.observe(document.body, { attributeFilter: ATTRIBUTES });
  return () => observer.disconnect();
}
