// src/dom.ts
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}
function makeButton(text, onClick, attributes = {}) {
  const button = make("button", { type: "button", ...attributes }, text);
  button.addEventListener("click", onClick);
  return button;
}
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copySelected(text))
      throw new Error("The browser does not let this page copy. Open it over https, or download a file.");
  }
}
function copySelected(text) {
  const focused = document.activeElement;
  const field = make("textarea", { readonly: true, "aria-hidden": "true", tabindex: -1 });
  field.value = text;
  field.style.cssText = "position: fixed; top: 0; left: 0; opacity: 0";
  for (const event of ["keydown", "copy", "focusin"]) field.addEventListener(event, (each) => each.stopPropagation());
  document.body.append(field);
  try {
    field.select();
    return document.execCommand("copy");
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}

// src/base/cells.ts
async function insertCell(element, source) {
  const options = { bubbles: true, cancelable: true, composed: true, detail: { source } };
  if (!element.dispatchEvent(new CustomEvent("micromegas:new-cell", options))) return true;
  await copyText(source);
  return false;
}

// src/explain/explain.ts
function render({ model, el }) {
  const [code, text, source] = ["code", "text", "source"].map((name) => String(model.get(name)));
  const said = make("div", { role: "status" });
  const insert = async () => {
    try {
      const isInserted = await insertCell(root, source ?? "");
      said.textContent = isInserted ? "Inserted below." : "Copied. Paste it into a cell.";
    } catch (error) {
      said.textContent = error.message;
    }
  };
  const button = make(
    "div",
    {},
    makeButton("Insert corrected cell", () => void insert())
  );
  const corrected = source ? [make("p", {}, "Corrected:"), make("pre", {}, source), button, said] : [];
  const lines = (text ?? "").split("\n").map((line) => make("p", {}, line));
  const summary = make("summary", {}, `Explain ${code}`);
  const details = make("details", {}, summary, ...corrected, ...lines);
  const root = make(
    "div",
    { class: "micromegas-card micromegas-explain", "data-lm-suppress-shortcuts": true },
    details
  );
  el.append(root);
}
var explain_default = { render };
export {
  explain_default as default
};
