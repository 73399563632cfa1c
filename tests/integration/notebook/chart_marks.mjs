// Draws specifications without a screen, as the result widget does, and reads their marks as a viewer would: by position
// and size.
// usage: node chart_marks.mjs LIBRARY CSV < lines of {"id", "spec"} > lines of {"id", "panels", "compiled"} or {"id", "error"}
// LIBRARY is the module that the kernel sends to a page, CSV the widget's parser.
import { createInterface } from "node:readline";

const [library, csv] = process.argv.slice(2);
const { vega, compile, expressionInterpreter } = await import(library);
const { parseRows } = await import(csv);
const silent = Object.fromEntries(["warn", "info", "debug", "error", "level"].map((name) => [name, () => silent]));
const NEAR = 0.02; // pixels

function* groupsOf(group) {
  yield group;
  for (const mark of group.items ?? []) {
    const isLines = mark.name?.endsWith("_pathgroup");
    if (mark.marktype === "group" && !isLines) for (const inner of mark.items) yield* groupsOf(inner);
  }
}

function scalesOf(view) {
  const found = {};
  const gather = (runtime) => {
    for (const [name, { value }] of Object.entries(runtime.scales ?? {})) found[name] ??= value;
    for (const inner of runtime.subcontext ?? []) gather(inner);
  };
  gather(view._runtime);
  return found;
}

function spanOf(scale, low, high) {
  return scale?.invert ? [scale.invert(low), scale.invert(high)].map(Number) : null;
}

// How many pairs of rectangles cover each other by more than a fiftieth of a pixel in both directions.
function overlapsOf(items) {
  const sorted = items.map((item) => [item.x, item.x + item.width, item.y, item.y + item.height]);
  sorted.sort((one, other) => one[0] - other[0]);
  let count = 0;
  sorted.forEach(([, right, top, bottom], at) => {
    for (let next = at + 1; next < sorted.length && sorted[next][0] < right - NEAR; next += 1) {
      count += sorted[next][2] < bottom - NEAR && sorted[next][3] > top + NEAR;
    }
  });
  return count;
}

function panelOf(scales, mark, name, group) {
  const prefix = name.replace(/(_layer_\d+)?_(marks|pathgroup)$/, "");
  const concat = `concat_${prefix.match(/\d+$/)?.[0] - 1}`;
  const scale = (axis) => scales[`${prefix}_${axis}`] ?? scales[`${concat}_${axis}`] ?? scales[axis];
  const [x, y] = [scale("x"), scale("y")];
  const items = mark.items.filter((item) => item.defined !== false);
  const isRect = mark.marktype === "rect";
  const isArea = mark.marktype === "area";
  const marks = items.map((item) => ({
    datum: Object.fromEntries(Object.entries(item.datum).filter(([name]) => /^(x2?|y2?|from|to|series|rows)$/.test(name))),
    x: isRect ? spanOf(x, item.x, item.x + item.width) : [Number(x.invert(item.x))],
    // Of an area from its beginning to its end, whichever is higher.
    y: isRect ? spanOf(y, item.y + item.height, item.y) : isArea ? spanOf(y, item.y2, item.y) : [Number(y.invert(item.y))],
    isEmpty: isRect && !(item.width > 0 && item.height > 0),
    isOutside:
      !(item.x >= -NEAR && item.y >= -NEAR) ||
      item.x + (item.width ?? 0) > group.width + NEAR ||
      item.y + (item.height ?? 0) > group.height + NEAR,
  }));
  return { type: mark.marktype, marks, overlaps: isRect ? overlapsOf(items) : 0 };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, spec } = JSON.parse(line);
  try {
    const vconcat = spec.vconcat.map((panel) => {
      const { values, format } = panel.data;
      return { ...panel, data: { values: parseRows(values, format?.parse ?? {}) } };
    });
    const compiled = compile({ ...spec, vconcat }, { logger: silent }).spec;
    const view = new vega.View(vega.parse(compiled, null, { ast: true }), { renderer: "none", expr: expressionInterpreter });
    await view.runAsync();
    const scales = scalesOf(view);
    const panels = new Map();
    for (const root of view.scenegraph().root.items) {
      for (const group of groupsOf(root)) {
        for (const mark of group.items ?? []) {
          const name = /^(panel_\d+)_(marks|pathgroup)$/.exec(mark.name ?? "")?.[1];
          if (!name) continue;
          // Lines are in one group for each series.
          const parts = mark.marktype === "group" ? mark.items.flatMap((each) => each.items) : [mark];
          for (const part of parts) {
            const found = panelOf(scales, part, mark.name, group);
            const panel = panels.get(name) ?? { name, type: found.type, marks: [], overlaps: 0 };
            panel.marks.push(...found.marks);
            panel.overlaps += found.overlaps;
            panels.set(name, panel);
          }
        }
      }
    }
    view.finalize();
    const result = { id, panels: [...panels.values()], compiled: compile(spec, { logger: silent }).spec };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ id, error: String(error.stack ?? error).slice(0, 400) })}\n`);
  }
}
