// The side panel's questions to its half in the kernel (notebook/panel.py). The kernel registers a comm when the
// extension is loaded there, so kernels without it get no message that they don't understand.

import type { Kernel } from "@jupyterlab/services";

export type KernelConnection = Kernel.IKernelConnection;

const TARGET = "micromegas.panel";
const DEADLINE_MILLISECONDS = 30_000;
const SOON_MILLISECONDS = 2_000;

export interface Column {
  name: string;
  /** The name as SQL, quoted if necessary. */
  sql: string;
  type: string;
  remarks: string;
}

export interface Table {
  name: string;
  sql: string;
  remarks: string;
  columns: Column[];
}

export interface Query {
  head: string;
  sql: string;
}

export interface PastQuery extends Query {
  cell: string;
}

export interface RunningQuery extends Query {
  query: string;
}

interface Answers {
  connections: string[];
  tables: Table[];
  history: { own: PastQuery[]; others: PastQuery[] };
  running: RunningQuery[];
  cancel: string;
}

interface Waiting {
  resolve: (answer: unknown) => void;
  reject: (error: Error) => void;
  timer: ReturnType<typeof setTimeout>;
}

export class PanelKernel {
  /** The name of the connection that questions are about; empty for the one in use. */
  connection = "";
  // Each page hears the replies to all of them.
  private next = Math.floor(Math.random() * 2 ** 40) * 1000;
  private readonly waiting = new Map<number, Waiting>();

  /** Return the panel's half in this kernel; undefined if the extension is not loaded there. */
  static async find(kernel: KernelConnection): Promise<PanelKernel | undefined> {
    // A busy kernel lists its comms later, but its subshell replies to a comm now.
    const listed = await inTime(kernel.requestCommInfo({ target_name: TARGET }));
    if (listed && !(listed.content.status === "ok" && TARGET in listed.content.comms)) return undefined;
    if (kernel.hasComm(TARGET)) return undefined;
    const found = new PanelKernel(kernel.createComm(TARGET, TARGET));
    // The type of a comm doesn't declare it.
    const { subshellStarted } = found.comm as Kernel.IComm & { subshellStarted?: Promise<void> };
    if (kernel.supportsSubshells && subshellStarted) await inTime(subshellStarted.then(() => true));
    if (listed || (await inTime(found.ask("history")))) return found;
    found.close();
    return undefined;
  }

  private constructor(private readonly comm: Kernel.IComm) {
    comm.onMsg = ({ content }) => this.receive(content.data);
  }

  get isClosed(): boolean {
    return this.comm.isDisposed;
  }

  /** Leave the comm open in the kernel, for other pages. */
  close(): void {
    this.comm.dispose();
    for (const { timer, reject } of this.waiting.values()) {
      clearTimeout(timer);
      reject(new Error("The notebook has changed."));
    }
    this.waiting.clear();
  }

  /** Ask for something; rejects with a sentence to show. */
  async ask<Op extends keyof Answers>(op: Op, details: Record<string, string> = {}): Promise<Answers[Op]> {
    const id = this.next++;
    const answer = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new Error("The kernel is busy or does not respond. Refresh when it is idle."));
      }, DEADLINE_MILLISECONDS);
      this.waiting.set(id, { resolve, reject, timer });
      try {
        this.comm.send({ id, op, connection: this.connection, ...details });
      } catch {
        // A restart closes the comm; JupyterLab's error is "Cannot send".
        this.waiting.delete(id);
        clearTimeout(timer);
        reject(new Error("The kernel was restarted. Run %load_ext micromegas_jupyter again."));
      }
    });
    return answer as Answers[Op];
  }

  private receive(reply: { id?: unknown; answer?: unknown; error?: unknown }): void {
    const waiting = this.waiting.get(Number(reply.id));
    if (!waiting) return; // another page's
    this.waiting.delete(Number(reply.id));
    clearTimeout(waiting.timer);
    if (typeof reply.error === "string") waiting.reject(new Error(reply.error));
    else waiting.resolve(reply.answer);
  }
}

/** Return what is there soon, or else undefined. */
async function inTime<T>(found: Promise<T>): Promise<T | undefined> {
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), SOON_MILLISECONDS));
  return Promise.race([found.catch(() => undefined), late]);
}
