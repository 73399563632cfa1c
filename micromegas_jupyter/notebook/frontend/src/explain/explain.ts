// The help below a failed statement: the meaning of the error and, if the server suggests one, a corrected cell.
import { insertCell } from "../base/cells";
import { make, makeButton } from "../dom";
import type { RenderContext } from "../widget";

function render({ model, el }: RenderContext): void {
  const [code, text, source] = ["code", "text", "source"].map((name) => String(model.get(name)));
  const said = make("div", { role: "status" });
  const insert = async () => {
    try {
      const isInserted = await insertCell(root, source ?? "");
      said.textContent = isInserted ? "Inserted below." : "Copied. Paste it into a cell.";
    } catch (error) {
      said.textContent = (error as Error).message;
    }
  };
  const button = make(
    "div",
    {},
    makeButton("Insert corrected cell", () => void insert()),
  );
  const corrected = source ? [make("p", {}, "Corrected:"), make("pre", {}, source), button, said] : [];
  const lines = (text ?? "").split("\n").map((line) => make("p", {}, line));
  const summary = make("summary", {}, `Explain ${code}`);
  const details = make("details", {}, summary, ...corrected, ...lines);
  // Otherwise JupyterLab would handle Enter and the space bar.
  const root = make(
    "div",
    { class: "micromegas-card micromegas-explain", "data-lm-suppress-shortcuts": true },
    details,
  );
  el.append(root);
}

export default { render };
