import { expect, test } from "vitest";

import { arrangeRows, exactTime, findEndingAfter, shortTime, type Spans } from "./layout";

/** Spans in waterfall order: the parent's index, start, and duration of each. */
function spansOf(...rows: [parent: number, start: number, duration: number][]): Spans {
  const count = rows.length;
  const size = new Int32Array(count).fill(1);
  for (let span = count - 1; span > 0; span--) {
    const parent = rows[span]![0];
    if (parent >= 0) size[parent]! += size[span]!;
  }
  return {
    count,
    size,
    parent: Int32Array.from(rows, ([parent]) => parent),
    start: Float64Array.from(rows, ([, start]) => start),
    duration: Float64Array.from(rows, ([, , duration]) => duration),
    self: new Float64Array(count),
    name: new Uint32Array(count),
    service: new Uint32Array(count),
    flags: new Uint8Array(count),
  };
}

test("siblings are parallel only if they overlapped, to the nanosecond", () => {
  const day = 86_400e9; // far beyond a double's precision if times were relative to 1970
  const one = arrangeRows(spansOf([-1, day, 100], [0, day, 50], [0, day + 50, 50]));
  const two = arrangeRows(spansOf([-1, day, 100], [0, day, 51], [0, day + 50, 50]));

  expect([...one.row]).toEqual([0, 1, 1]);
  expect([...two.row]).toEqual([0, 1, 2]);
});

test("a subtree that outlasts its root, or starts before it, gets its own rows", () => {
  const rows = arrangeRows(spansOf([-1, 0, 100], [0, 10, 20], [1, 15, 40], [0, 40, 10], [0, 80, 10], [4, 30, 60]));

  expect([...rows.row]).toEqual([0, 1, 2, 5, 3, 4]);
});

test("10,000 parallel siblings take a row each, and as many in sequence share one", () => {
  const siblings = (start: (n: number) => number): Spans =>
    spansOf([-1, 0, 1e6], ...Array.from({ length: 10_000 }, (_, n): [number, number, number] => [0, start(n), 50]));

  expect(arrangeRows(siblings(() => 5)).count).toBe(10_001);
  expect(arrangeRows(siblings((n) => n * 50)).count).toBe(2);
});

test("the spans of a row never overlap", () => {
  let seed = 7;
  const random = (limit: number): number => (seed = (seed * 16_807) % 2_147_483_647) % limit;
  for (let round = 0; round < 200; round++) {
    const rows: [number, number, number][] = [];
    const add = (parent: number, depth: number): void => {
      const span = rows.push([parent, random(100), random(60)]) - 1;
      for (let child = random(4); depth < 4 && child > 0; child--) add(span, depth + 1);
    };
    for (let root = 0; root < 2; root++) add(-1, 0);
    const spans = spansOf(...rows);
    const { row, count, order, first } = arrangeRows(spans);

    expect(first[count]).toBe(spans.count);
    for (let each = 0; each < count; each++) {
      for (let index = first[each]! + 1; index < first[each + 1]!; index++) {
        const before = order[index - 1]!;
        expect(spans.start[before]! + spans.duration[before]!).toBeLessThanOrEqual(spans.start[order[index]!]!);
      }
    }
    spans.parent.forEach((parent, span) => {
      expect(row[span]!).toBeGreaterThan(parent < 0 ? -1 : row[parent]!);
    });
  }
});

test("the first span that ends after a time is found", () => {
  const spans = spansOf([-1, 0, 10], [-1, 10, 10], [-1, 20, 10]);
  const order = Int32Array.from([0, 1, 2]);

  expect([-1, 9, 10, 29, 30].map((time) => findEndingAfter(spans, order, 0, 3, time))).toEqual([0, 0, 1, 2, 3]);
});

test("times have all their digits, or four", () => {
  const times = [0, 999, 1_000, 71_472_082, 1_284_000_001];
  expect(times.map(exactTime)).toEqual(["0 ns", "999 ns", "1 µs", "71.472082 ms", "1.284000001 s"]);
  expect(times.map(shortTime)).toEqual(["0 ns", "999 ns", "1 µs", "71.47 ms", "1.284 s"]);
});
