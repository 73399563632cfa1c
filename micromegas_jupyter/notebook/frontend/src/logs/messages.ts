// The replies and reports of the kernel side (notebook/logs/view.py).

/** Time, level, service, target, and message of a line. */
export type Line = [string, number, string, string, string];

export interface Block {
  /** The number of the first line, which stays the same while older ones are dropped. */
  first: number;
  lines: Line[];
}

export interface State {
  /** Microseconds since 1970. */
  begin: number;
  /** Microseconds per bar. */
  width: number;
  /** For each bar, the lines of each level. */
  bars: number[][];
  total: number;
  skipped: number;
  first: number;
  next: number;
  is_following: boolean;
  level: number;
  search: string;
  filters: [string, string, boolean][];
  error: string;
  tail: Block;
}

export interface Detail {
  line: number;
  time: string;
  level: number;
  message: string;
  values: [string, string][];
  trace_id: string;
}

export interface Patterns {
  patterns: [string, number, number][];
  count: number;
}

export interface LogAnswers {
  watch: object;
  leave: object;
  state: State;
  level: State;
  search: State;
  filter: State;
  unfilter: State;
  range: State;
  around: State;
  follow: State;
  lines: Block;
  detail: Detail;
  patterns: Patterns;
}

export const LEVELS = ["", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

export function countText(count: number): string {
  return count.toLocaleString("en");
}

export function timeText(microseconds: number): string {
  return new Date(microseconds / 1000).toISOString().slice(11, 19);
}
