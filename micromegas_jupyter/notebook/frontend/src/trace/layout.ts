// The spans of a trace, or merged call paths, as columns; the rows of a flame graph; times as text. No DOM access.

export const ERROR = 1;
export const CRITICAL = 2;
export const ORPHAN = 4;

/** Spans in waterfall order: each before its children. The next sibling of span `i` is `i + size[i]`. */
export interface Spans {
  count: number;
  /** Nanoseconds since the first start: doubles are exact up to 104 days. */
  start: Float64Array;
  duration: Float64Array;
  self: Float64Array;
  parent: Int32Array;
  size: Int32Array;
  name: Uint32Array;
  service: Uint32Array;
  flags: Uint8Array;
}

export interface Rows {
  count: number;
  /** The row of each span. */
  row: Int32Array;
  /** Spans by row and then by time; row `i` starts at `first[i]`. */
  order: Int32Array;
  first: Int32Array;
}

/**
 * Arrange spans below their parents. Siblings share rows unless their subtrees overlap in time; a subtree counts as a
 * whole because a child may outlast its parent. Therefore, the spans of a row never overlap.
 */
export function arrangeRows(spans: Spans): Rows {
  const { count, start, duration, parent, size } = spans;
  const low = start.slice();
  const high = start.map((each, span) => each + duration[span]!);
  const height = new Int32Array(count);
  const offset = new Int32Array(count);
  const arrangeSiblings = (first: number, last: number): number => {
    const siblings = [];
    for (let span = first; span < last; span += size[span]!) siblings.push(span);
    siblings.sort((one, other) => low[one]! - low[other]!);
    // Both orders are stable: a sibling that ends before another one starts already has its lane.
    const ending = [...siblings].sort((one, other) => high[one]! - high[other]!);
    const [free, heights, lanes] = [[] as number[], [] as number[], new Map<number, number>()];
    let ended = 0;
    for (const span of siblings) {
      for (; high[ending[ended]!]! <= low[span]! && lanes.has(ending[ended]!); ended++)
        free.push(lanes.get(ending[ended]!)!);
      const lane = free.pop() ?? heights.push(0) - 1;
      lanes.set(span, lane);
      heights[lane] = Math.max(heights[lane]!, height[span]!);
    }
    let total = 0;
    const tops = heights.map((each) => (total += each) - each);
    for (const [span, lane] of lanes) offset[span] = tops[lane]!;
    return total;
  };
  // Children come after their parents: backwards, a subtree is complete before its parent.
  for (let span = count - 1; span >= 0; span--) {
    const above = parent[span]!;
    height[span] = 1 + (size[span]! > 1 ? arrangeSiblings(span + 1, span + size[span]!) : 0);
    if (above < 0) continue;
    low[above] = Math.min(low[above]!, low[span]!);
    high[above] = Math.max(high[above]!, high[span]!);
  }
  const rows = arrangeSiblings(0, count);
  const row = offset;
  for (let span = 0; span < count; span++) if (parent[span]! >= 0) row[span]! += row[parent[span]!]! + 1;
  return { count: rows, row, ...groupByRow(start, row, rows) };
}

function groupByRow(start: Float64Array, row: Int32Array, rows: number): Pick<Rows, "order" | "first"> {
  const first = new Int32Array(rows + 1);
  for (const each of row) first[each + 1]!++;
  for (let each = 0; each < rows; each++) first[each + 1]! += first[each]!;
  const next = first.slice();
  const order = new Int32Array(row.length);
  row.forEach((each, span) => (order[next[each]!++] = span));
  for (let each = 0; each < rows; each++) {
    order.subarray(first[each], first[each + 1]).sort((one, other) => start[one]! - start[other]! || one - other);
  }
  return { order, first };
}

/** Return the position of the first span in `order[from..to)` that ends after a time; within a row, ends ascend. */
export function findEndingAfter(spans: Spans, order: Int32Array, from: number, to: number, time: number): number {
  while (from < to) {
    const middle = (from + to) >> 1;
    const span = order[middle]!;
    if (spans.start[span]! + spans.duration[span]! > time) to = middle;
    else from = middle + 1;
  }
  return from;
}

const UNITS: [name: string, digits: number][] = [
  ["s", 9],
  ["ms", 6],
  ["µs", 3],
];

/** Return a duration with all its digits, as in `71.472082 ms`. */
export function exactTime(nanoseconds: number): string {
  const whole = Math.round(Math.abs(nanoseconds));
  const [name, digits] = UNITS.find(([, each]) => whole >= 10 ** each) ?? ["ns", 0];
  const text = String(whole).padStart(digits + 1, "0");
  const fraction = digits ? text.slice(-digits).replace(/0+$/, "") : "";
  return `${nanoseconds < 0 ? "-" : ""}${text.slice(0, text.length - digits)}${fraction && "."}${fraction} ${name}`;
}

/** Return a duration with four significant digits, as in `71.47 ms`. */
export function shortTime(nanoseconds: number): string {
  const [name, digits] = UNITS.find(([, each]) => Math.abs(nanoseconds) >= 10 ** each) ?? ["ns", 0];
  return `${Number((nanoseconds / 10 ** digits).toPrecision(4))} ${name}`;
}
