// Builds each widget of src/ into static/, which is committed: `pip install .` needs no Node. The result is not minified,
// so that a change of it can be reviewed.
import { readdirSync } from "node:fs";
import { build } from "esbuild";

const entries = readdirSync("src", { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }) => [`src/${name}/${name}.ts`, `src/${name}/${name}.css`]);

await build({
  entryPoints: entries,
  bundle: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  entryNames: "[name]",
  outdir: "static",
  logLevel: "info",
});
