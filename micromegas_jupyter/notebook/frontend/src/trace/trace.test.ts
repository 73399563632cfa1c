// @vitest-environment happy-dom
import { afterEach, expect, test, vi } from "vitest";
import trace from "./trace";

const ONE_SPAN = [
  ...[[0], [10], [10]].map((each) => Float64Array.from(each)),
  ...[[-1], [1]].map((each) => Int32Array.from(each)),
  ...[[0], [0]].map((each) => Uint32Array.from(each)),
  ...[Uint8Array.from([0]), Uint32Array.from([0]), Int32Array.from([0])],
  ...[[0], [10]].map((each) => Float64Array.from(each)),
];

afterEach(() => document.body.replaceChildren());

test("a search that fails leaves its error only", async () => {
  const listeners = new Set<(message: object, buffers: DataView[]) => void>();
  const buffers = ONE_SPAN.map(({ buffer }) => new DataView(buffer));
  const replies: Record<string, object> = {
    spans: { answer: { names: ["order"], services: ["shop"], total: 10 } },
    details: { answer: { name: "order", sections: [] } },
    search: { error: "The server is gone." },
  };
  const el = document.createElement("div");
  document.body.append(el);
  const model = {
    get: (name: string) => (name === "mode" ? "trace" : "order"),
    on: (_: string, listener: (message: object, buffers: DataView[]) => void) => listeners.add(listener),
    off: () => undefined,
    send: ({ id, op }: { id: number; op: string }) =>
      queueMicrotask(() => listeners.forEach((listener) => listener({ id, ...replies[op] }, buffers))),
  };
  const close = trace.render({ model, el } as never);
  await vi.waitFor(() => expect(el.querySelector(".micromegas-trace-live")?.textContent).toContain("order · shop"));

  const search = el.querySelector("input")!;
  search.value = "card";
  search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
  expect(el.textContent).toContain("searching…");
  await vi.waitFor(() => expect(el.querySelector("[role=alert]")?.textContent).toBe("✗ The server is gone."));
  expect(el.textContent).not.toContain("searching…");
  close();
});
