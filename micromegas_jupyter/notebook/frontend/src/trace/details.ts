// The attributes, events, links, and logs of the selected span.

import { make, makeButton } from "../dom";

type Pairs = [name: string, value: string][];

export interface Details {
  name: string;
  sections: [title: string, items: { text?: string; is_severe?: boolean; trace_id?: string; pairs?: Pairs }[]][];
}

export function drawDetails({ name, sections }: Details, openTrace: (id: string) => void): Node[] {
  const nodes: Node[] = [make("h3", {}, name)];
  for (const [title, items] of sections) {
    if (title) nodes.push(make("h4", {}, title));
    for (const { text = "", is_severe: isSevere, trace_id: id, pairs = [] } of items) {
      const list = pairs.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]);
      nodes.push(make("div", { class: isSevere ? "severe" : "" }, text, make("dl", {}, ...list)));
      if (id) nodes.push(makeButton(`Trace ${id.slice(0, 8)}…`, () => openTrace(id), { title: "Insert a cell" }));
    }
  }
  return nodes;
}
