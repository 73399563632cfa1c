// Exports of the matching rows: the kernel writes the file, while the page shows its progress and can cancel it. A
// download is split into parts, because the kernel sends one message at a time.

import { make, makeButton } from "../dom";
import type { FileFormat, GridKernel, RowQuery } from "./kernel";

const POLL_MILLISECONDS = 250;
const FORMATS: [FileFormat, string][] = [
  ["csv", "CSV"],
  ["parquet", "Parquet"],
  ["arrow", "Arrow"],
];

export class Exports {
  readonly root: HTMLElement;
  private readonly place = make(
    "select",
    { "aria-label": "Export to" },
    make("option", { value: "download" }, "Download"),
    make("option", { value: "folder" }, "Save in the notebook's folder"),
  );
  private readonly buttons = make("span", { class: "micromegas-grid-export", role: "group", "aria-label": "Export" });
  private readonly bar = make("progress", { "aria-label": "Export", max: 1, value: 0 });
  private readonly text = make("span");
  private readonly running: HTMLElement;
  private isCanceled = false;

  constructor(
    private readonly kernel: GridKernel,
    private readonly rows: () => { order: RowQuery; hidden: number[] },
    private readonly say: (sentence: string) => void,
  ) {
    this.buttons.append(
      this.place,
      ...FORMATS.map(([format, name]) =>
        makeButton(`↓ ${name}`, () => void this.start(format), {
          title: "Export the rows that match, with the columns that are shown",
          "aria-label": `Download ${name}`,
        }),
      ),
    );
    this.place.addEventListener("change", () => {
      const verb = this.place.value === "download" ? "Download" : "Save";
      for (const [index, button] of [...this.buttons.querySelectorAll("button")].entries())
        button.setAttribute("aria-label", `${verb} ${FORMATS[index]?.[1] ?? ""}`);
    });
    const cancel = makeButton("Cancel", () => (this.isCanceled = true), { "aria-label": "Cancel the export" });
    this.running = make("span", { class: "micromegas-grid-export", hidden: true }, this.bar, this.text, cancel);
    this.root = make("span", {}, this.buttons, this.running);
  }

  private async start(format: FileFormat): Promise<void> {
    const button = this.buttons.ownerDocument.activeElement;
    const to = this.place.value;
    this.isCanceled = false;
    this.show("", 0);
    this.say("");
    let sentence: string;
    try {
      const { answer } = await this.kernel.ask("export", { ...this.rows(), format, to });
      sentence = await this.follow(answer.export, to);
    } catch (error) {
      sentence = (error as Error).message;
    }
    const hadFocus = this.running.contains(this.running.ownerDocument.activeElement);
    this.running.hidden = true;
    this.buttons.hidden = false;
    if (hadFocus && button instanceof HTMLElement) button.focus({ preventScroll: true });
    this.say(sentence);
  }

  /** Wait until the file is complete, and download it; returns the sentence to show. */
  private async follow(id: number, to: string): Promise<string> {
    try {
      for (;;) {
        const { answer } = await this.kernel.ask("export_state", { export: id });
        if (this.isCanceled) return "Export canceled.";
        if (answer.size !== null && to === "folder") return `Saved in the notebook's folder: ${answer.name}`;
        if (answer.size !== null) return await this.download(id, answer.size, answer.name, answer.type);
        const rows = answer.rows.toLocaleString("en");
        this.show(`${rows} of ${answer.total.toLocaleString("en")} rows`, answer.rows / Math.max(answer.total, 1));
        await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
      }
    } finally {
      // An export that failed or was replaced by another view's has already ended.
      await this.kernel.ask(this.isCanceled ? "export_cancel" : "export_end", { export: id }).catch(() => undefined);
    }
  }

  private async download(id: number, size: number, name: string, type: string): Promise<string> {
    const parts: DataView[] = [];
    for (let first = 0; first < size;) {
      const { buffers } = await this.kernel.ask("export_part", { export: id, first });
      if (this.isCanceled) return "Export canceled.";
      const [part] = buffers;
      if (!part?.byteLength) throw new Error("The file is incomplete. Export the rows again.");
      parts.push(part);
      first += part.byteLength;
      this.show(`${Math.floor((100 * first) / size)}% downloaded`, first / size);
    }
    const url = URL.createObjectURL(new Blob(parts as DataView<ArrayBuffer>[], { type }));
    make("a", { href: url, download: name }).click();
    // The browser has read it by the time the next task runs.
    setTimeout(() => URL.revokeObjectURL(url), 0);
    return `Downloaded ${name}`;
  }

  private show(text: string, value: number): void {
    const hadFocus = this.buttons.contains(this.buttons.ownerDocument.activeElement);
    this.buttons.hidden = true;
    this.running.hidden = false;
    if (hadFocus) this.running.querySelector("button")?.focus({ preventScroll: true });
    this.text.textContent = text;
    this.bar.value = value;
  }
}
