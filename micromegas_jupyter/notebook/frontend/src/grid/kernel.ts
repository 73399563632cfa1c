// The grid's requests to its kernel side, and the contents of the replies.

import type { Kernel } from "../base/kernel";

export interface Column {
  name: string;
  type: string;
  arrow_type: string;
  kind: "number" | "time" | "text" | "boolean" | "json" | "binary" | "other";
  unit: string;
  nulls: number;
  sortable: boolean;
}

export interface Spread {
  distinct: number | null;
  min: string | null;
  max: string | null;
  /** The lowest and the highest value, shortened, with their common part in between. */
  ends: string[];
  bars: number[];
  /** The number of matching rows per bar; empty without a filter. */
  matching: number[];
  bins: string[];
  /** Values, each with the number of matching rows and of all rows. */
  top: [string, number, number][];
  /** Example filters for the column. */
  hint: string;
}

/** Options of a chart, with columns by position; missing options follow from the columns. */
export interface ChartOptions {
  kind?: string | null;
  x?: number[];
  y?: number[];
  color?: number[];
  agg?: string[] | null;
  bins?: number | null;
  log?: string | null;
}

/** The part of a Vega-Lite specification that is read here. */
export interface ChartSpec {
  config: object;
  description: string;
  params: { name: string; select?: { type: string } }[];
  vconcat: {
    width: number;
    data: { values: unknown; format?: { parse: Record<string, string> } };
    encoding: Record<string, { field?: string; type?: string; title?: string }>;
  }[];
}

/** Filters as typed, by column, and the columns to sort by, with `true` for descending. */
export interface RowQuery {
  filters: Record<number, string>;
  sort: [number, boolean][];
}

/** Strings of some rows, a list per column; null is SQL's NULL. */
export type Texts = (string | null)[][];

export type FileFormat = "csv" | "parquet" | "arrow";

export interface GridAnswers {
  rows: { total: number; texts: Texts };
  spreads: Record<number, Spread>;
  vega: object;
  chart: { plot: number; spec: ChartSpec; chosen: ChartOptions; text: string };
  brush: { filters: Record<number, string> };
  pick: { filters: Record<number, string> };
  cell: { source: string };
  value: { text: string; is_cut: boolean };
  copy: { text: string };
  export: { export: number };
  export_state: { rows: number; total: number; name: string; type: string; size: number | null };
  export_part: object;
  export_cancel: object;
  export_end: object;
}

export type GridKernel = Kernel<GridAnswers>;
