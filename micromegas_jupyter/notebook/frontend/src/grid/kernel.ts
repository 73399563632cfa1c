// The grid's questions to its half in the kernel. Each has a number, which its answer repeats.

import type { Model } from "../widget";

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
  /** The lowest and the highest value, short, with what both have in common in between. */
  ends: string[];
  bars: number[];
  /** How many rows of each bar match; empty without a filter. */
  matching: number[];
  bins: string[];
  /** Values, with how many rows match and how many there are. */
  top: [string, number, number][];
  /** Filters that fit the column. */
  hint: string;
}

/** Options of a chart, with columns by position; what is missing follows from the columns. */
export interface ChartOptions {
  kind?: string | null;
  x?: number[];
  y?: number[];
  color?: number[];
  agg?: string[] | null;
  bins?: number | null;
  log?: string | null;
}

/** A Vega-Lite specification, as far as it is read here. */
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

/** Texts of some rows, one list for each column; null stands for SQL's NULL. */
export type Texts = (string | null)[][];

export type FileFormat = "csv" | "parquet" | "arrow";

interface Answers {
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

interface Reply {
  id?: unknown;
  answer?: unknown;
  error?: unknown;
}

interface Waiting {
  resolve: (reply: { answer: unknown; buffers: DataView[] }) => void;
  reject: (error: Error) => void;
  timer: ReturnType<typeof setTimeout>;
}

const DEADLINE_MILLISECONDS = 120_000;

export class Kernel {
  // Each view of a grid hears the answers to all of them.
  private next = Math.floor(Math.random() * 2 ** 40) * 1000;
  private readonly waiting = new Map<number, Waiting>();

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.receive);
  }

  /** Ask for something; rejects with a sentence to show when the kernel refuses or does not answer. */
  async ask<Op extends keyof Answers>(
    op: Op,
    details: object = {},
  ): Promise<{ answer: Answers[Op]; buffers: DataView[] }> {
    const id = this.next++;
    const reply = await new Promise<{ answer: unknown; buffers: DataView[] }>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Error("The kernel does not answer. Run the cell again."));
      }, DEADLINE_MILLISECONDS);
      this.waiting.set(id, { resolve, reject, timer });
      try {
        this.model.send({ id, op, ...details });
      } catch {
        // A restart closes the comm; JupyterLab's error is "Cannot send".
        this.waiting.delete(id);
        clearTimeout(timer);
        reject(new Error("The kernel no longer has these rows. Run the cell again."));
      }
    });
    return reply as { answer: Answers[Op]; buffers: DataView[] };
  }

  close(): void {
    this.model.off("msg:custom", this.receive);
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    this.waiting.clear();
  }

  private readonly receive = (reply: Reply, buffers: DataView[] = []): void => {
    const waiting = this.waiting.get(Number(reply.id));
    if (!waiting) return; // a question of another view
    this.waiting.delete(Number(reply.id));
    clearTimeout(waiting.timer);
    if (typeof reply.error === "string") waiting.reject(new Error(reply.error));
    else waiting.resolve({ answer: reply.answer, buffers });
  };
}
