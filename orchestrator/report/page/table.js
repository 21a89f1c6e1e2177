// The table of trials: sort, filter, choose columns, save as CSV.

const PAGE = 50;
const view = { columns: new Set(data.shown), sort: null, down: false, filter: "", page: 0, rows: [] };
const rowColumns = ["front", ...Object.keys(data.columns)];

function tableSection(section) {
  const n = data.table.n, of = data.table.of;
  const filter = make("input", { type: "search", id: "filter", size: "40", autocomplete: "off", spellcheck: "false",
    placeholder: "accuracy>=0.9 front=yes", "aria-describedby": "filter-help" });
  filter.addEventListener("input", () => { view.filter = filter.value; view.page = 0; refresh(); });
  section.append(
    make("p", { class: "note", id: "filter-help" }, (n < of ? `${n.toLocaleString("en")} of ${of.toLocaleString("en")} ` +
      "trials: those on the front, failed ones and an even choice of the others. " : "") +
      "A filter is words that a row must hold, and comparisons such as compress.pfr>0.3 status=failed; fractions are " +
      "0 to 1. Numbers have seven digits here; trials.parquet has them all."),
    make("div", { class: "controls" }, make("label", {}, "Filter ", filter),
      make("button", { type: "button", id: "save", onclick: save }, "Save as CSV"), make("output", { id: "found" })),
    make("details", { class: "more" }, make("summary", {}, "Columns"), make("div", { class: "columns" },
      ...rowColumns.map(name => make("label", {}, make("input", { type: "checkbox", checked: view.columns.has(name),
        onchange: event => { view.columns[event.target.checked ? "add" : "delete"](name); refresh(); } }), name)))),
    make("div", { class: "scroll" }, make("table", { id: "rows" }, make("thead"), make("tbody"))),
    make("div", { class: "controls" }, make("button", { type: "button", id: "back", onclick: () => turn(-1) }, "Back"),
      make("output", { id: "page" }), make("button", { type: "button", id: "next", onclick: () => turn(1) }, "Next")));
}

const cellOf = (name, row) => (name === "front" ? at(data.rows.columns.front, row) : valueAt(name, row));

function setFilter(text) {
  document.getElementById("filter").value = text;
  Object.assign(view, { filter: text, page: 0 });
  refresh();
  document.getElementById("table").scrollIntoView();
}

const quoted = value => (/[\s"]/.test(String(value)) ? `"${String(value).replaceAll('"', "")}"` : String(value));

/** Words and comparisons of a filter; quotes keep spaces. */
function terms(text) {
  const found = text.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
  return found.map(term => {
    const [, name, sign, value] = term.match(/^([\w.]+)(>=|<=|!=|=|>|<)(.*)$/s) ?? [];
    if (sign && rowColumns.includes(name)) return { name, sign, value: value.replaceAll('"', "") };
    if (sign) return { unknown: name };
    return { word: term.replaceAll('"', "").toLowerCase() };
  });
}

function holds(term, row) {
  if ("unknown" in term) return false;
  if ("word" in term) {
    return [...view.columns].some(name => String(cellOf(name, row) ?? "").toLowerCase().includes(term.word));
  }
  const value = cellOf(term.name, row), wanted = Number(term.value);
  if (value === null) return term.sign === "=" ? ["", "none", "null"].includes(term.value) : term.sign === "!=";
  const numbers = typeof value === "number" && term.value !== "" && !Number.isNaN(wanted);
  const [a, b] = numbers ? [value, wanted] : [String(value).toLowerCase(), term.value.toLowerCase()];
  return { "=": a === b, "!=": a !== b, ">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b }[term.sign];
}

/** Missing values come last, whichever way is sorted. */
function compare(name, down) {
  return (i, j) => {
    const a = cellOf(name, i), b = cellOf(name, j);
    if (a === null || b === null) return (a === null) - (b === null);
    return (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))) * (down ? -1 : 1);
  };
}

function refresh() {
  const wanted = terms(view.filter);
  view.rows = [...Array(data.rows.n).keys()].filter(row => wanted.every(term => holds(term, row)));
  if (view.sort) view.rows.sort(compare(view.sort, view.down));
  const pages = Math.max(1, Math.ceil(view.rows.length / PAGE));
  view.page = Math.min(view.page, pages - 1);
  const unknown = wanted.filter(term => "unknown" in term).map(term => term.unknown);
  document.getElementById("found").textContent = plural(view.rows.length, "row") +
    (unknown.length ? `; no column ${unknown.join(", ")}: the names are under Columns` : "");
  document.getElementById("page").textContent = `page ${view.page + 1} of ${pages}`;
  document.getElementById("back").disabled = view.page === 0;
  document.getElementById("next").disabled = view.page === pages - 1;
  fill();
  memory.set("table", JSON.stringify({ ...view, columns: [...view.columns], rows: [] }));
}

function turn(step) { view.page += step; refresh(); }

function fill() {
  const names = rowColumns.filter(name => view.columns.has(name)).sort((a, b) => rank(a) - rank(b));
  const numeric = new Set(names.filter(name => view.rows.some(row => typeof cellOf(name, row) === "number")));
  const sorted = name => (view.sort === name ? (view.down ? "descending" : "ascending") : "none");
  const arrow = name => ({ ascending: " ▲", descending: " ▼", none: "" }[sorted(name)]);
  const table = document.getElementById("rows");
  const focused = document.activeElement?.dataset?.sort;
  table.tHead.replaceChildren(make("tr", {}, ...names.map(name => make("th", { scope: "col", "aria-sort": sorted(name),
    class: numeric.has(name) ? "number" : null },
  make("button", { type: "button", title: described(name).doc || "", "data-sort": name, onclick: () => sortBy(name) },
    name + arrow(name))))));
  const rows = view.rows.slice(view.page * PAGE, (view.page + 1) * PAGE);
  table.tBodies[0].replaceChildren(...rows.map(row => make("tr", {
    class: at(data.rows.columns.front, row) === "yes" ? "pick member" : "pick", onclick: () => openRow(row),
  }, ...names.map(name => cell(name, row, numeric)))));
  if (focused) [...table.querySelectorAll("[data-sort]")].find(one => one.dataset.sort === focused)?.focus();
}

const rank = name => (data.shown.includes(name) ? data.shown.indexOf(name) : 1000 + rowColumns.indexOf(name));

function cell(name, row, numeric) {
  const value = cellOf(name, row);
  if (name === "trial_id") return make("td", {}, make("button", { type: "button" }, String(value)));
  const text = cut(shown(name, value), 160);
  return make("td", { class: numeric.has(name) ? "number" : text.length > 32 ? "text" : null }, text);
}

function sortBy(name) {
  view.down = view.sort === name ? !view.down : described(name).better === "max";
  Object.assign(view, { sort: name, page: 0 });
  refresh();
}

/** CSV cells begin no formula: a spreadsheet takes a text after ' as it is. */
function csv(value) {
  if (value === null) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csvText = () => [rowColumns, ...view.rows.map(row => rowColumns.map(name => cellOf(name, row)))]
  .map(line => line.map(csv).join(",") + "\r\n").join("");

function save() {
  const link = make("a", { download: `${data.study.name.replace(/[^\w.-]+/g, "_") || "trials"}.csv` });
  link.href = URL.createObjectURL(new Blob([csvText()], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function restoreTable() {
  try {
    const kept = JSON.parse(memory.get("table") ?? "null");
    if (!kept || !data.live) return;
    Object.assign(view, kept, { columns: new Set(kept.columns.filter(name => rowColumns.includes(name))), rows: [] });
    if (!rowColumns.includes(view.sort)) view.sort = null;
    document.getElementById("filter").value = view.filter;
    for (const box of document.querySelectorAll(".columns input")) box.checked = view.columns.has(box.parentNode.textContent);
  } catch { /* a note of another version is no loss */ }
}
