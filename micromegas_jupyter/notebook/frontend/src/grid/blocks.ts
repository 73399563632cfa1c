// The rows that the browser holds: blocks of texts, fetched when they come near, the least recently used dropped.

import type { Kernel, Order, Texts } from "./kernel";

export const BLOCK_ROWS = 200;
const MAX_BLOCKS = 50;

export class Blocks {
  order: Order = { filters: {}, sort: [] };
  private blocks = new Map<number, Texts | "fetching">();
  /** Grows with each new order: what was asked before it does not count any more. */
  private generation = 0;

  constructor(
    private readonly kernel: Kernel,
    public total: number,
    private readonly first: Texts,
    private readonly onChange: () => void,
    private readonly onError: (error: Error) => void,
  ) {}

  /** Show the rows in another order; rejects when the kernel refuses it, and the order stays as it was. */
  async arrange(order: Order): Promise<boolean> {
    const generation = ++this.generation;
    const { answer } = await this.kernel.ask("rows", { order, first: 0, count: BLOCK_ROWS });
    if (generation !== this.generation) return false; // another order has been asked for since
    this.order = order;
    this.total = answer.total;
    this.blocks = new Map([[0, answer.texts]]);
    this.onChange();
    return true;
  }

  /** Return a cell's text; undefined while it is on its way. */
  text(row: number, column: number): string | null | undefined {
    const block = this.blocks.get(Math.floor(row / BLOCK_ROWS));
    if (block !== undefined && block !== "fetching") return block[column]?.[row % BLOCK_ROWS];
    // The rows that came with the widget, until somebody asks for another order.
    return this.generation === 0 ? this.first[column]?.[row] : undefined;
  }

  /** Fetch the blocks of these rows and the next one on either side. */
  need(firstRow: number, lastRow: number): void {
    const last = Math.floor(Math.max(this.total - 1, 0) / BLOCK_ROWS);
    const from = Math.floor(firstRow / BLOCK_ROWS);
    const to = Math.min(Math.floor(lastRow / BLOCK_ROWS), last);
    for (let block = from; block <= to; block++) void this.fetch(block);
    if (to < last) void this.fetch(to + 1);
    if (from > 0) void this.fetch(from - 1);
  }

  private async fetch(block: number): Promise<void> {
    const known = this.blocks.get(block);
    if (known !== undefined) {
      this.blocks.delete(block);
      this.blocks.set(block, known); // the most recently used one
      return;
    }
    const { generation, order } = this;
    this.blocks.set(block, "fetching");
    try {
      const { answer } = await this.kernel.ask("rows", { order, first: block * BLOCK_ROWS, count: BLOCK_ROWS });
      if (generation !== this.generation) return;
      this.blocks.set(block, answer.texts);
      const oldest = this.blocks.keys().next().value;
      if (this.blocks.size > MAX_BLOCKS && oldest !== undefined) this.blocks.delete(oldest);
      this.onChange();
    } catch (error) {
      if (generation !== this.generation) return;
      this.blocks.delete(block);
      this.onError(error as Error);
    }
  }
}
