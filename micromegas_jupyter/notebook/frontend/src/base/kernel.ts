// A widget's requests to its kernel side (notebook/widget.py). Each has a number, which its reply repeats.

import type { Model } from "../widget";

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

export class Kernel<Answers> {
  // Each view of a widget receives the replies to all views.
  private next = Math.floor(Math.random() * 2 ** 40) * 1000;
  private readonly waiting = new Map<number, Waiting>();

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.receive);
  }

  /** Send a request; rejects with a sentence to show if the kernel reports an error or does not respond. */
  async ask<Op extends keyof Answers>(
    op: Op,
    details: object = {},
  ): Promise<{ answer: Answers[Op]; buffers: DataView[] }> {
    const id = this.next++;
    const reply = await new Promise<{ answer: unknown; buffers: DataView[] }>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Error("The kernel does not respond. Run the cell again."));
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
    if (!waiting) return; // a request of another view
    this.waiting.delete(Number(reply.id));
    clearTimeout(waiting.timer);
    if (typeof reply.error === "string") waiting.reject(new Error(reply.error));
    else waiting.resolve({ answer: reply.answer, buffers });
  };
}
