// Paints spans on a canvas: a waterfall or a flame graph, the time axis, and the minimap. Independent of events and
// the kernel. The cost of a frame depends on rows and pixels, not on the number of spans.

import { make } from "../dom";
import { CRITICAL, ERROR, exactTime, findEndingAfter, shortTime, type Rows, type Spans } from "./layout";

export const ROW = 18;
export const NAMES = 260;
const AXIS = 20;
const MAP = 36;
export const TOP = MAP + AXIS;
export { MAP };
const MAX_INDENTS = 14;
const INDENT = 10;
const LETTER = 5.8;
const MIN_TEXT = 30;

export interface Scene {
  spans: Spans;
  names: string[];
  depth: Uint32Array;
  /** The rows of the flame graph; without them, the scene is a waterfall of the `visible` spans. */
  rows: Rows | undefined;
  visible: Int32Array;
  closed: ReadonlySet<number>;
  path: { span: Int32Array; begin: Float64Array; end: Float64Array };
  /** Relative changes from -1 to 1 of two sets of traces; they determine the colors. */
  changes: Float64Array | undefined;
  matches: ReadonlySet<number>;
  selected: number;
  total: number;
  from: number;
  to: number;
  scroll: number;
}

const LIGHT = { selected: "#e2ebf7", error: "#b71c1c", critical: "#9a4d00", isDark: false };
const DARK = { selected: "#333b47", error: "#ff6b6b", critical: "#ffb74d", isDark: true };

export class Painter {
  readonly canvas: HTMLCanvasElement;
  width = 0;
  height = 0;
  private map: HTMLCanvasElement | undefined;
  private colors = { ...LIGHT, ink: "", paper: "" };

  constructor(attributes: Record<string, string | number>) {
    this.canvas = make("canvas", attributes);
  }

  /** Adapt to a size or theme. */
  resize(width: number, height: number): void {
    const style = getComputedStyle(this.canvas);
    const [ink, paper] = [style.getPropertyValue("--ink").trim(), style.getPropertyValue("--paper").trim()];
    this.width = width;
    this.height = height;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    this.canvas.style.height = `${height}px`;
    this.map = undefined;
    this.colors = { ...(isLight(style.color) ? DARK : LIGHT), ink, paper };
  }

  left(scene: Scene): number {
    return scene.rows ? 0 : NAMES;
  }

  indent(scene: Scene, span: number): number {
    return 4 + Math.min(scene.depth[span]!, MAX_INDENTS) * INDENT;
  }

  paint(scene: Scene): void {
    const pen = this.canvas.getContext("2d");
    if (!pen || !this.width) return;
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.globalAlpha = 1;
    pen.fillStyle = this.colors.paper;
    pen.fillRect(0, 0, this.width, this.height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.paintMap(pen, scene);
    this.paintAxis(pen, scene);
    pen.save();
    pen.beginPath();
    pen.rect(0, TOP, this.width, this.height - TOP);
    pen.clip();
    if (scene.rows) this.paintFlame(pen, scene, scene.rows);
    else this.paintWaterfall(pen, scene);
    pen.restore();
  }

  /** Paint the minimap of all spans; expensive, so after the first frame. */
  prepareMap(scene: Scene): boolean {
    if (this.map || !this.width) return false;
    const { spans, rows, depth, total } = scene;
    this.map = make("canvas", { width: Math.ceil(this.width), height: MAP });
    const pen = this.map.getContext("2d");
    if (!pen) return false;
    const scale = this.width / total;
    const lines = rows ? rows.count : depth.reduce((deepest, each) => Math.max(deepest, each), 0) + 1;
    const height = Math.max((MAP - 4) / lines, 0.5);
    const painted = new Uint8Array(this.map.width * MAP);
    for (let span = 0; span < spans.count; span++) {
      const x = spans.start[span]! * scale;
      const y = (rows ? rows.row[span]! : depth[span]!) * height;
      const width = Math.max(spans.duration[span]! * scale, 1);
      const isError = (spans.flags[span]! & ERROR) !== 0;
      const pixel = Math.floor(x) + Math.floor(y) * this.map.width;
      if (width <= 1 && !isError && painted[pixel]) continue;
      painted[pixel] = 1;
      pen.fillStyle = isError ? this.colors.error : this.color(scene, span);
      pen.fillRect(x, isError ? MAP - 4 : y, width, isError ? 4 : Math.max(height, 1));
    }
    return true;
  }

  /** Return the span at a position of the canvas. */
  find(scene: Scene, x: number, y: number): number | undefined {
    const line = Math.floor((y - TOP + scene.scroll) / ROW);
    if (line < 0 || y < TOP) return undefined;
    if (!scene.rows) return scene.visible[line];
    const { order, first, count } = scene.rows;
    if (line >= count) return undefined;
    const pixel = (scene.to - scene.from) / this.width;
    const time = scene.from + x * pixel;
    const index = findEndingAfter(scene.spans, order, first[line]!, first[line + 1]!, time - pixel);
    const span = index < first[line + 1]! ? order[index]! : -1;
    return span >= 0 && scene.spans.start[span]! <= time + pixel ? span : undefined;
  }

  private paintWaterfall(pen: CanvasRenderingContext2D, scene: Scene): void {
    const { visible, spans, names, closed, scroll } = scene;
    const last = Math.min(visible.length, Math.ceil((scroll + this.height) / ROW));
    for (let line = Math.floor(scroll / ROW); line < last; line++) {
      const span = visible[line]!;
      const y = TOP + line * ROW - scroll;
      const indent = this.indent(scene, span);
      if (span === scene.selected) {
        pen.fillStyle = this.colors.selected;
        pen.fillRect(0, y, NAMES, ROW);
      }
      pen.fillStyle = this.colors.ink;
      const sign = closed.has(span) ? "▸ " : spans.size[span]! > 1 ? "▾ " : "  ";
      pen.fillText(fit(sign + names[spans.name[span]!]!, NAMES - indent - 6), indent, y + ROW / 2);
      this.paintSpan(pen, scene, span, y);
    }
  }

  private paintFlame(pen: CanvasRenderingContext2D, scene: Scene, rows: Rows): void {
    const { spans, from, to, scroll } = scene;
    const pixel = (to - from) / this.width;
    const lastRow = Math.min(rows.count, Math.ceil((scroll + this.height) / ROW));
    for (let row = Math.floor(scroll / ROW); row < lastRow; row++) {
      const last = rows.first[row + 1]!;
      let next = findEndingAfter(spans, rows.order, rows.first[row]!, last, from);
      while (next < last) {
        const span = rows.order[next]!;
        const [start, duration] = [spans.start[span]!, spans.duration[span]!];
        if (start > to) break;
        this.paintSpan(pen, scene, span, TOP + row * ROW - scroll);
        // Narrow spans that end within the same pixel would be painted over each other.
        const end = from + (Math.floor((start + duration - from) / pixel) + 1) * pixel;
        next = duration < pixel ? findEndingAfter(spans, rows.order, next + 1, last, end) : next + 1;
      }
    }
    this.paintPath(pen, scene, rows);
  }

  private paintSpan(pen: CanvasRenderingContext2D, scene: Scene, span: number, y: number): void {
    const { spans, names, matches } = scene;
    const left = this.left(scene);
    const scale = (this.width - left) / (scene.to - scene.from);
    const begin = left + (spans.start[span]! - scene.from) * scale;
    const end = begin + spans.duration[span]! * scale;
    if (begin > this.width || end < left) return;
    const x = Math.max(left, begin);
    const width = Math.max(1, Math.min(this.width, end) - x);
    const flags = spans.flags[span]!;
    pen.globalAlpha = matches.size && !matches.has(span) ? 0.25 : 1;
    pen.fillStyle = this.color(scene, span);
    pen.fillRect(x, y + 1, width, ROW - 2);
    if (flags & ERROR) {
      pen.fillStyle = this.colors.error;
      pen.fillRect(x, y + ROW - 4, width, 3);
    }
    if (flags & CRITICAL && !scene.rows) {
      pen.fillStyle = this.colors.critical;
      pen.fillRect(x, y + 1, width, 2);
    }
    pen.globalAlpha = 1;
    if (span === scene.selected) {
      pen.strokeStyle = this.colors.ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(x + 0.5, y + 1.5, Math.max(width - 1, 1), ROW - 3);
    }
    if (width < MIN_TEXT) return;
    pen.fillStyle = this.colors.ink;
    const name = scene.rows ? `${names[spans.name[span]!]!} ` : "";
    const text = `${flags & ERROR ? "✗ " : ""}${name}${shortTime(spans.duration[span]!)}`;
    pen.fillText(fit(text, width - 6), x + 3, y + ROW / 2);
  }

  private paintPath(pen: CanvasRenderingContext2D, scene: Scene, rows: Rows): void {
    const { span, begin, end } = scene.path;
    const scale = this.width / (scene.to - scene.from);
    const painted = new Set<number>();
    pen.fillStyle = this.colors.critical;
    for (let each = 0; each < span.length; each++) {
      if (end[each]! < scene.from || begin[each]! > scene.to) continue;
      const x = (begin[each]! - scene.from) * scale;
      const width = (end[each]! - begin[each]!) * scale;
      const row = rows.row[span[each]!]!;
      const pixel = row * 100_000 + Math.floor(x);
      if (width < 1 && painted.has(pixel)) continue;
      painted.add(pixel);
      pen.fillRect(x, TOP + row * ROW - scene.scroll + 1, Math.max(width, 1), 2);
    }
  }

  private paintAxis(pen: CanvasRenderingContext2D, scene: Scene): void {
    const left = this.left(scene);
    const shown = scene.to - scene.from;
    const rough = shown / Math.max((this.width - left) / 110, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max([1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) ?? rough, 1);
    pen.fillStyle = this.colors.ink;
    for (let time = Math.ceil(scene.from / step) * step; time <= scene.to; time += step) {
      const x = left + ((time - scene.from) / shown) * (this.width - left);
      pen.globalAlpha = 0.25;
      pen.fillRect(Math.round(x), MAP, 1, this.height);
      pen.globalAlpha = 1;
      pen.fillText(exactTime(time), x + 3, MAP + AXIS / 2);
    }
  }

  private paintMap(pen: CanvasRenderingContext2D, scene: Scene): void {
    if (this.map) pen.drawImage(this.map, 0, 0, this.width, MAP);
    const [x, end] = [scene.from, scene.to].map((time) => (time / scene.total) * this.width) as [number, number];
    pen.globalAlpha = 0.35;
    pen.fillStyle = this.colors.isDark ? "#000" : "#888";
    pen.fillRect(0, 0, x, MAP);
    pen.fillRect(end, 0, this.width - end, MAP);
    pen.globalAlpha = 1;
    pen.lineWidth = 1;
    pen.strokeStyle = this.colors.ink;
    pen.strokeRect(x + 0.5, 0.5, Math.max(end - x - 1, 2), MAP - 1);
  }

  private color({ spans, changes }: Scene, span: number): string {
    const { isDark } = this.colors;
    if (changes) {
      // Red means growth, blue means shrinkage.
      const change = changes[span]!;
      const saturation = Math.round(Math.abs(change) * 80);
      return `hsl(${change > 0 ? 5 : 215} ${saturation}% ${isDark ? 34 : 82}%)`;
    }
    // Hues follow the golden angle; a constant lightness keeps the text readable.
    const hue = Math.round((210 + spans.service[span]! * 137.5) % 360);
    return `hsl(${hue} ${isDark ? "35% 34%" : "55% 82%"})`;
  }
}

function fit(text: string, width: number): string {
  const letters = Math.floor(width / LETTER);
  if (text.length <= letters) return text;
  return letters > 2 ? `${text.slice(0, letters - 1)}…` : "";
}

function isLight(color: string): boolean {
  const [red = 0, green = 0, blue = 0] = (/[\d., ]+/.exec(color)?.[0] ?? "").split(",").map(Number);
  return red * 0.3 + green * 0.6 + blue * 0.1 > 128;
}
