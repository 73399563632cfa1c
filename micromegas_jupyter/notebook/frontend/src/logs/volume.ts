// Lines over time, a bar per slot with a color per level. A drag, or Shift with the arrow keys and Enter,
// selects a range.

import { make } from "../dom";
import { LEVELS, countText, timeText, type State } from "./messages";

const HEIGHT = 56;
const AXIS = 14;
const LABEL_WIDTH = 120;

export class VolumeChart {
  readonly root = make("canvas", {
    class: "micromegas-logs-volume",
    tabindex: 0,
    role: "slider",
    "aria-label": "Lines over time. Shift with the arrow keys selects a range, Enter shows it",
    "aria-valuemin": 0,
  });
  private state: State | undefined;
  private cursor = 0;
  private anchor = 0;
  private isSelecting = false;

  constructor(private readonly choose: (begin: number, end: number) => void) {
    this.root.addEventListener("keydown", this.keyPressed);
    this.root.addEventListener("blur", () => this.draw());
    this.root.addEventListener("focus", () => this.draw());
    this.root.addEventListener("pointerdown", (event) => {
      this.anchor = this.cursor = this.barAt(event.offsetX);
      this.isSelecting = true;
      this.root.setPointerCapture(event.pointerId);
      this.draw();
    });
    this.root.addEventListener("pointermove", (event) => {
      if (!this.isSelecting) return;
      this.cursor = this.barAt(event.offsetX);
      this.draw();
    });
    this.root.addEventListener("pointerup", () => {
      if (this.isSelecting && this.cursor !== this.anchor) this.apply();
      this.isSelecting = false;
    });
    this.root.addEventListener("pointercancel", () => (this.isSelecting = false));
  }

  show(state: State): void {
    const before = this.state;
    if (before && (before.begin !== state.begin || before.width !== state.width)) this.cursor = this.anchor = 0;
    this.state = state;
    this.cursor = Math.min(this.cursor, state.bars.length - 1);
    this.anchor = Math.min(this.anchor, state.bars.length - 1);
    this.draw();
  }

  draw(): void {
    const { state, root } = this;
    const width = root.clientWidth;
    const pen = root.getContext("2d");
    if (!state) return;
    this.describe(state);
    if (!width || !pen) return;
    root.width = width * devicePixelRatio;
    root.height = HEIGHT * devicePixelRatio;
    pen.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(root);
    const highest = Math.max(1, ...state.bars.map(sum));
    const step = width / state.bars.length;
    const [from, to] = this.range();
    if (from !== to || root.matches(":focus")) {
      pen.fillStyle = style.getPropertyValue("--selected");
      pen.fillRect(from * step, 0, (to - from + 1) * step, HEIGHT - AXIS);
    }
    state.bars.forEach((bar, index) => {
      let y = HEIGHT - AXIS;
      bar.forEach((count, level) => {
        const height = (count / highest) * (HEIGHT - AXIS - 2);
        pen.fillStyle = style.getPropertyValue(`--level${level + 1}`);
        pen.fillRect(index * step, y - height, Math.max(step - 1, 1), height);
        y -= height;
      });
    });
    pen.fillStyle = style.color;
    pen.font = "10px system-ui, sans-serif";
    for (let x = 0; x < width - LABEL_WIDTH / 2; x += LABEL_WIDTH)
      pen.fillText(timeText(state.begin + (x / step) * state.width), x, HEIGHT - 3);
  }

  private describe(state: State): void {
    const [from, to] = this.range();
    const counts = LEVELS.slice(1).map((name, level): [string, number] => [
      name,
      sum(state.bars.slice(from, to + 1).map((bar) => bar[level] ?? 0)),
    ]);
    const found = counts.filter(([, count]) => count > 0).map(([name, count]) => `${countText(count)} ${name}`);
    const [begin, end] = [from, to + 1].map((bar) => timeText(state.begin + bar * state.width));
    this.root.setAttribute("aria-valuemax", String(state.bars.length - 1));
    this.root.setAttribute("aria-valuenow", String(this.cursor));
    this.root.setAttribute("aria-valuetext", `${begin ?? ""} to ${end ?? ""}: ${found.join(", ") || "no lines"}`);
    this.root.title = this.root.getAttribute("aria-valuetext") ?? "";
  }

  private range(): [number, number] {
    return [Math.min(this.cursor, this.anchor), Math.max(this.cursor, this.anchor)];
  }

  private barAt(x: number): number {
    const bars = this.state?.bars.length ?? 1;
    return Math.max(Math.min(Math.floor((x / this.root.clientWidth) * bars), bars - 1), 0);
  }

  private apply(): void {
    if (!this.state) return;
    const [from, to] = this.range();
    const { begin, width } = this.state;
    this.choose(begin + from * width, begin + (to + 1) * width);
  }

  private readonly keyPressed = (event: KeyboardEvent): void => {
    const last = (this.state?.bars.length ?? 1) - 1;
    const to = { ArrowLeft: this.cursor - 1, ArrowRight: this.cursor + 1, Home: 0, End: last }[event.key];
    if (event.key === "Enter") this.apply();
    else if (to === undefined) return;
    else {
      this.cursor = Math.max(Math.min(to, last), 0);
      if (!event.shiftKey) this.anchor = this.cursor;
      this.draw();
    }
    event.preventDefault();
    event.stopPropagation();
  };
}

function sum(counts: number[]): number {
  return counts.reduce((total, each) => total + each, 0);
}
