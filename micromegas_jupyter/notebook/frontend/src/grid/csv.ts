// A chart's numbers: the kernel sends them as CSV, which is compact.

export type Row = Record<string, string | number | null>;

interface Encoded {
  field?: string;
  type?: string;
  title?: string;
}

/** Parse CSV with a header; columns in `parse` become numbers, and `nan` becomes null. */
export function parseRows(text: string, parse: Record<string, string>): Row[] {
  const lines: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    lines.at(-1)?.push(quoted === undefined ? (plain ?? "") : quoted.replaceAll('""', '"'));
    if (end === "\n") lines.push([]);
    if (end === "") break;
  }
  const [head = [], ...rows] = lines;
  return rows
    .filter((row) => row.length === head.length)
    .map((row) => Object.fromEntries(head.map((name, at) => [name, valueOf(row[at] ?? "", parse[name])])));
}

function valueOf(text: string, kind: string | undefined): string | number | null {
  if (kind !== "number") return text;
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? null : number;
}

/** Return the table of a panel's numbers. */
export function columnsOf(
  encoding: Record<string, Encoded>,
  row: Row,
): { field: string; title: string; text: (row: Row) => string }[] {
  const known = Object.values(encoding).filter(({ field }) => field !== undefined && field in row);
  const fields = ["x", "x2", "series", "y", "y2", "rows"].filter((field) => field in row);
  return fields.map((field) => {
    const found = known.find((each) => each.field === field);
    const isTime = [field, field.replace("2", "")].some((name) =>
      known.some((each) => each.field === name && each.type === "temporal"),
    );
    const title = found?.title ?? (field.endsWith("2") ? "to" : field);
    return { field, title, text: (each) => textOf(each[field] ?? null, isTime) };
  });
}

function textOf(value: string | number | null, isTime: boolean): string {
  if (typeof value !== "number") return value ?? "";
  if (!isTime) return value.toLocaleString("en", { maximumSignificantDigits: 12 });
  return new Date(value)
    .toISOString()
    .replace("T", " ")
    .replace(/(\.000)?Z$/, "");
}
