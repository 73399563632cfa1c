// The chart renderer, sent by the kernel once per page, for the first chart.
export { expressionInterpreter } from "vega-interpreter";
export { compile } from "vega-lite";
export * as vega from "vega";
