// Colors are JupyterLab's, so that light and dark follow the theme.

export const STYLE = `
.micromegas-panel {
  --soft: color-mix(in srgb, var(--jp-ui-font-color0) 75%, var(--jp-layout-color1));
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color0);
  font: 13px/1.4 var(--jp-ui-font-family);
  overflow-y: auto;
  padding: 8px;
}
.micromegas-panel [hidden] { display: none; }
.micromegas-panel :is(h2, h3) { display: inline; font-size: 13px; font-weight: 600; margin: 0; }
.micromegas-panel-bar { display: flex; justify-content: space-between; align-items: center; }
.micromegas-panel summary { cursor: pointer; padding: 3px 0; overflow-wrap: anywhere; }
.micromegas-panel-body { padding: 0 0 8px 8px; }
.micromegas-panel ul { list-style: none; margin: 4px 0; padding: 0; }
.micromegas-panel li { margin: 0 0 2px; overflow-wrap: anywhere; }
.micromegas-panel li li { margin-left: 12px; }
.micromegas-panel p { margin: 2px 0; color: var(--soft); }
.micromegas-panel-message:empty { display: none; }
.micromegas-panel-soft { color: var(--soft); font-size: 12px; }
.micromegas-panel pre {
  font: 12px/1.35 var(--jp-code-font-family);
  background: var(--jp-layout-color2);
  color: inherit;
  margin: 2px 0;
  padding: 4px;
  max-height: 8em;
  overflow: auto;
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.micromegas-panel :is(input, select) {
  box-sizing: border-box;
  width: 100%;
  font: inherit;
  color: inherit;
  background: var(--jp-layout-color0);
  border: 1px solid var(--soft);
  border-radius: 3px;
  padding: 3px 6px;
}
.micromegas-panel ::placeholder { color: var(--soft); opacity: 1; }
.micromegas-panel button {
  font: inherit;
  color: inherit;
  background: var(--jp-layout-color2);
  border: 1px solid var(--jp-border-color1);
  border-radius: 3px;
  margin: 1px 4px 1px 0;
  padding: 1px 6px;
  text-align: left;
  cursor: pointer;
}
.micromegas-panel :is(button, summary, input, select, pre):focus-visible { outline: 2px solid var(--jp-brand-color1); }
`;

const SVG = "http://www.w3.org/2000/svg";
/** A table. */
export const ICON = document.createElementNS(SVG, "svg");
ICON.setAttribute("viewBox", "0 0 20 20");
ICON.setAttribute("width", "20");
ICON.style.cssText = "display: block; margin: auto";
const path = document.createElementNS(SVG, "path");
path.setAttribute("class", "jp-icon3");
path.setAttribute("fill", "#616161");
path.setAttribute("d", "M2 3h16v14H2zM4 8v3h5V8zm7 0v3h5V8zM4 13v2h5v-2zm7 0v2h5v-2z");
path.setAttribute("fill-rule", "evenodd");
ICON.append(path);
