// Draws the tables of a server, searches them here in the browser, and asks the kernel for one thing only: what a
// table holds, when a person opens it. The kernel's half is table_explorer.py. Everything is set as text, never as markup.

export default {
  render({ model, el }) {
    const root = add(el, "section", "micromegas-tables");
    root.setAttribute("aria-label", `Tables of ${model.get("server")}`);
    const head = add(root, "div", "micromegas-tables-head");
    const label = add(head, "label");
    label.append("Search tables and columns");
    const search = add(label, "input");
    search.type = "search";
    search.value = model.get("search");
    search.placeholder = "part of a name; * is any text";
    search.autocomplete = "off";
    search.spellcheck = false;
    // Announced when it changes: how many match, and what was copied.
    const status = add(head, "div", "micromegas-tables-status");
    status.setAttribute("role", "status");
    status.setAttribute("aria-live", "polite");
    const list = add(root, "div", "micromegas-tables-list");

    const say = (text) => {
      if (status.textContent !== text) status.textContent = text;
    };
    const parts = model.get("tables").map((table) => drawTable(list, table, { model, say }));
    const find = () => {
      const matches = matcher(search.value);
      const found = parts.filter((part) => part.find(matches, search.value.trim() !== "")).length;
      say(found === parts.length ? model.get("title") : `${found} of ${parts.length} tables match`);
    };
    const showFacts = () => parts.forEach((part) => part.showFacts());

    search.addEventListener("input", find);
    model.on("change:facts", showFacts);
    find();
    showFacts();
    return () => {
      search.removeEventListener("input", find);
      model.off("change:facts", showFacts);
    };
  },
};

function drawTable(list, table, { model, say }) {
  const part = add(list, "details");
  const summary = add(part, "summary");
  add(summary, "code").textContent = table.name;
  // What is known of a table is seen without opening it; while it is open, it stands in the bar alone.
  const summaryFacts = add(summary, "span", "micromegas-tables-known");
  const about = add(summary, "span", "micromegas-tables-about");
  about.textContent = table.remarks;
  const body = add(part, "div", "micromegas-tables-body");
  const bar = add(body, "div", "micromegas-tables-bar");
  const facts = add(bar, "span");
  facts.setAttribute("role", "status");
  bar.append(copyButton("Copy name", table.name, say), copyButton("Copy SELECT", statement(table), say));
  // Drawn when the table is opened first: a server may have many.
  let rows;

  const draw = () => {
    if (rows) return;
    const grid = add(body, "table");
    const head = add(add(grid, "thead"), "tr");
    for (const title of ["Column", "Type", "Description"]) {
      const cell = add(head, "th");
      cell.scope = "col";
      cell.textContent = title;
    }
    const columns = add(grid, "tbody");
    rows = table.columns.map(([name, type, remarks]) => {
      const row = add(columns, "tr");
      const cell = add(row, "td");
      add(cell, "code").textContent = name;
      const copy = copyButton("Copy", name, say);
      copy.setAttribute("aria-label", `Copy ${name}`);
      cell.append(copy);
      add(row, "td").textContent = type;
      add(row, "td").textContent = remarks;
      return { row, name };
    });
  };
  // A table may be called like something that every object has.
  const known = () => (Object.hasOwn(model.get("facts"), table.name) ? model.get("facts")[table.name] : undefined);
  const showFacts = () => {
    const line = known();
    if (line !== undefined) summaryFacts.textContent = facts.textContent = line;
  };
  // Only what a person opens is counted, not what a search opens.
  const open = () => {
    if (part.open || known() !== undefined) return;
    facts.textContent = "Counting…";
    model.send({ open: table.name });
  };
  summary.addEventListener("click", open);
  part.addEventListener("toggle", () => part.open && draw());

  let openedBySearch = false;
  return {
    showFacts,
    // Whether the table matches; when only columns do, it opens and shows those.
    find(matches, isSearching) {
      const byName = matches(table.name);
      const byColumn = isSearching && !byName && table.columns.some(([name]) => matches(name));
      part.hidden = !byName && !byColumn;
      if (byColumn) {
        draw();
        openedBySearch ||= !part.open;
        part.open = true;
      } else if (openedBySearch) {
        openedBySearch = false;
        part.open = false;
      }
      for (const { row, name } of rows ?? []) row.hidden = byColumn && !matches(name);
      return byName || byColumn;
    },
  };
}

// Part of a name, whatever its case; `*` is any text. The same as table_listing.py understands it.
function matcher(text) {
  const escaped = text.trim().split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
  const expression = new RegExp(escaped.join(".*"), "i");
  return (name) => expression.test(name);
}

function statement(table) {
  return `SELECT ${table.columns.map(([name]) => quoted(name)).join(", ")} FROM ${quoted(table.name)}`;
}

function quoted(name) {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

function copyButton(title, text, say) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = title;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      say(text.length > 60 ? "Copied." : `Copied ${text}`);
    } catch {
      // Without https a page has no clipboard.
      say("The browser does not let this page copy. Select the name and copy it.");
    }
  });
  return button;
}

function add(parent, tag, name) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  parent.append(element);
  return element;
}
