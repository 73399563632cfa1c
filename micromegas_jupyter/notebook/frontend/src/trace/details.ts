// The attributes, events, links, and logs of the selected span.

import { make, makeButton } from "../dom";

type Pairs = [name: string, value: string][];

export interface Details {
  name: string;
  facts: Pairs;
  attributes: Pairs;
  events: { text: string; attributes: Pairs }[];
  /** IDs of other traces. */
  links: string[];
  logs: { level: number; text: string }[];
}

const WARNING = 3;

export function drawDetails(details: Details, openTrace: (id: string) => void): Node[] {
  const { name, facts, attributes, events, links, logs } = details;
  return [
    make("h3", {}, name),
    list(facts),
    ...section("Attributes", attributes.length ? [list(attributes)] : []),
    ...section(
      "Events",
      events.map((each) => make("div", {}, each.text, list(each.attributes))),
    ),
    ...section(
      "Links",
      links.map((id) => makeButton(`Trace ${id.slice(0, 8)}…`, () => openTrace(id), { title: "Insert a cell" })),
    ),
    ...section(
      "Logs",
      logs.map(({ level, text }) =>
        make("div", { class: `micromegas-trace-log ${level <= WARNING ? "severe" : ""}` }, text),
      ),
    ),
  ];
}

function list(pairs: Pairs): Node {
  return make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function section(title: string, nodes: Node[]): Node[] {
  return nodes.length ? [make("h4", {}, title), ...nodes] : [];
}
