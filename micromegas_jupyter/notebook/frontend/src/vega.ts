// What draws charts: sent by the kernel once per page, on the first chart.
export { expressionInterpreter } from "vega-interpreter";
export { compile } from "vega-lite";
export * as vega from "vega";
