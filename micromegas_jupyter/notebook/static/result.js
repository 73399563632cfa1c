// Makes a table that can be sorted, filtered and paged out of the preview that it stands beside; never calls the kernel.
// The data's form is results/table.py's. Everything is set as text, never as markup.
// Comments have lines of their own: a copy without them is saved with each result.

(() => {
  const script = document.currentScript;
  const root = script && script.closest(".micromegas-result");
  const source = root && root.querySelector('script[type="application/json"]');
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const columns = data.columns;
  const collator = new Intl.Collator(undefined, { numeric: true });
  const isPart = data.rows < data.total;
  const state = { sort: -1, down: false, page: 0, size: 20, all: "", each: columns.map(() => "") };

  const add = (parent, tag, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return parent.appendChild(element);
  };
  const number = (value) => value.toLocaleString("en-US");
  const counted = (value) => (value === 1 ? "1 row" : `${number(value)} rows`);
  const shown = (text) => (text === null ? "null" : text);

  // No landmark: a notebook holds many results.
  const frame = document.createElement("div");
  frame.className = "micromegas-table";
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Query result");

  const tools = add(frame, "div", { class: "micromegas-tools" });
  const search = add(add(tools, "label", {}, "Filter "), "input", { type: "search", spellcheck: "false" });
  const toggle = add(tools, "button", { type: "button", "aria-expanded": "false" }, "By column");
  const status = add(tools, "span", { role: "status", class: "micromegas-count" });

  const scroll = add(frame, "div", { class: "micromegas-scroll" });
  const table = add(scroll, "table");
  const head = add(table, "thead");
  const names = add(head, "tr");
  const filters = add(head, "tr", { class: "micromegas-filters" });
  filters.hidden = true;
  const body = add(table, "tbody");
  // What has an order of its own (numbers, times) is never broken into lines.
  const kind = (column) => ({ class: (column.right ? "micromegas-right " : "") + (column.order ? "micromegas-whole" : "") });

  const headers = columns.map((column, index) => {
    const header = add(names, "th", { scope: "col", title: column.nulls, ...kind(column) });
    const button = add(header, "button", { type: "button", title: column.nulls });
    const name = add(button, "span", {}, column.name || "(no name)");
    const arrow = add(button, "span", { class: "micromegas-arrow", "aria-hidden": "true" });
    if (column.right) button.insertBefore(arrow, name);
    add(header, "span", { class: "micromegas-type" }, column.type);
    button.addEventListener("click", () => {
      if (state.sort !== index) Object.assign(state, { sort: index, down: false });
      else if (!state.down) state.down = true;
      else Object.assign(state, { sort: -1, down: false });
      state.page = 0;
      draw();
    });
    const input = add(add(filters, "td"), "input", { type: "search", spellcheck: "false", "aria-label": `Filter ${column.name}` });
    input.addEventListener("input", () => {
      state.each[index] = input.value.toLowerCase();
      state.page = 0;
      draw();
    });
    return { header, arrow, input };
  });

  const foot = add(frame, "div", { class: "micromegas-tools" });
  const pager = add(foot, "div", { role: "group", "aria-label": "Pages", class: "micromegas-pager" });
  const turn = (name, label, page) => {
    const button = add(pager, "button", { type: "button", "aria-label": label }, name);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") === "true") return;
      state.page = page();
      draw();
    });
    return button;
  };
  const first = turn("«", "First page", () => 0);
  const previous = turn("‹", "Previous page", () => state.page - 1);
  const place = add(pager, "span", { role: "status" });
  const next = turn("›", "Next page", () => state.page + 1);
  const last = turn("»", "Last page", () => Infinity);
  const sizes = add(add(foot, "label", {}, "Rows a page "), "select");
  for (const size of [20, 50, 200]) add(sizes, "option", { value: size }, String(size));
  const note = [isPart ? `first ${number(data.rows)} of ${counted(data.total)}; sorting and filters see only these ${number(data.rows)}` : counted(data.total)];
  if (columns.length < data.columnTotal) note.push(`first ${columns.length} of ${number(data.columnTotal)} columns`);
  add(foot, "span", { class: "micromegas-note" }, note.join(" · "));

  search.addEventListener("input", () => {
    state.all = search.value.toLowerCase();
    state.page = 0;
    draw();
  });
  toggle.addEventListener("click", () => {
    filters.hidden = !filters.hidden;
    toggle.setAttribute("aria-expanded", String(!filters.hidden));
    if (filters.hidden) {
      // A filter that cannot be seen must not go on hiding rows.
      state.each.fill("");
      for (const { input } of headers) input.value = "";
      draw();
    } else headers[0].input.focus();
  });
  sizes.addEventListener("change", () => {
    state.size = Number(sizes.value);
    state.page = 0;
    draw();
  });

  function matching() {
    const has = (column, row, text) => shown(column.texts[row]).toLowerCase().includes(text);
    const rows = [];
    for (let row = 0; row < data.rows; row++) {
      const each = columns.every((column, index) => !state.each[index] || has(column, row, state.each[index]));
      if (each && (!state.all || columns.some((column) => has(column, row, state.all)))) rows.push(row);
    }
    return state.sort < 0 ? rows : rows.sort(comparison(columns[state.sort], state.down ? -1 : 1));
  }

  // Stable, as the language says (ECMA-262 23.1.3.30); null and NaN come last in both directions.
  function comparison({ order, texts }, sign) {
    const keys = order || texts;
    const compare = order ? (a, b) => a - b : collator.compare;
    return (a, b) => {
      const [left, right] = [keys[a], keys[b]];
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * compare(left, right);
    };
  }

  function draw() {
    const rows = matching();
    const pages = Math.max(Math.ceil(rows.length / state.size), 1);
    state.page = Math.max(Math.min(state.page, pages - 1), 0);
    const begin = state.page * state.size;
    const part = rows.slice(begin, begin + state.size);
    body.replaceChildren(
      ...part.map((row) => {
        const line = document.createElement("tr");
        for (const column of columns) {
          const text = column.texts[row];
          const cell = add(line, "td", kind(column), text ?? "");
          if (text === null) add(cell, "em", {}, "null");
        }
        return line;
      }),
    );
    headers.forEach(({ header, arrow }, index) => {
      const isSorted = state.sort === index;
      arrow.textContent = isSorted ? (state.down ? "▼" : "▲") : "";
      header.setAttribute("aria-sort", isSorted ? (state.down ? "descending" : "ascending") : "none");
    });
    const isFiltered = Boolean(state.all) || state.each.some(Boolean);
    const set = (element, text) => element.textContent === text || (element.textContent = text);
    const scope = isPart ? `the first ${counted(data.rows)}` : counted(data.rows);
    set(status, isFiltered ? `${number(rows.length)} of ${scope} ${rows.length === 1 ? "matches" : "match"}` : "");
    set(place, part.length ? `rows ${number(begin + 1)}–${number(begin + part.length)} of ${number(rows.length)}` : "no rows");
    // They keep the focus, so that a person who turns pages by keyboard does not lose the place.
    for (const button of [first, previous]) button.setAttribute("aria-disabled", String(state.page === 0));
    for (const button of [next, last]) button.setAttribute("aria-disabled", String(state.page >= pages - 1));
    pager.hidden = data.rows <= 20;
    sizes.parentElement.hidden = data.rows <= 20;
  }

  draw();
  root.querySelector(".micromegas-preview").replaceWith(frame);
})();
