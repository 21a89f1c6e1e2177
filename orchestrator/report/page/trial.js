// One trial, or the trials of one setting: every column, and the command that exports it.

const rowOf = new Map();
const dialog = document.getElementById("trial");

/** The value of any column at a row of the report's table. */
function valueAt(name, row) {
  return Object.hasOwn(data.rows.constant, name) ? data.rows.constant[name] : at(data.rows.columns[name], row);
}

function openTrial(id) {
  const row = rowOf.get(id);
  if (row === undefined) {
    show(`Trial ${id}`, make("p", { class: "why" }, "This trial is not among the rows that the report holds; see: " +
      `orchestrator show ${id}`), command("orchestrator show ", id, ""));
    return;
  }
  openRow(row);
}

function openRow(row) {
  show(`Trial ${at(data.rows.columns.trial_id, row)}`, ...trialParts(row));
}

/** The trials of a setting, one a seed; the first is shown. */
function openSetting(point) {
  const rows = points.rows[point];
  const body = make("div");
  const put = row => body.replaceChildren(...trialParts(row));
  const measured = data.measured.map(name => [name, spread(name, points.mean[name][point], points.std[name][point])]);
  const several = rows.length > 1 ? make("div", { class: "controls" }, chooser("trial", rows.map(row =>
    `seed ${valueAt("seed", row)}: ${valueAt("trial_id", row)}`), 0, i => put(rows[i]))) : null;
  if (rows.length) put(rows[0]);
  else body.append(make("p", { class: "why" }, "The trials of this setting are not among the rows that the report holds."));
  show(settingName(point), make("h3", {}, `Mean over ${plural(points.seeds[point] ?? 0, "seed")}` +
    `${isMember(point) ? ", on the front" : ""}`), facts(measured), ...(several ? [several] : []), body);
}

function show(title, ...parts) {
  document.getElementById("trial-title").textContent = title;
  document.getElementById("trial-body").replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function trialParts(row) {
  const names = Object.keys(data.columns);
  const has = name => valueAt(name, row) !== null;
  const id = valueAt("trial_id", row), [before, after] = data.study.export;
  const parts = [make("h3", {}, `Trial ${id}, seed ${valueAt("seed", row)}`)];
  if (valueAt("error", row) !== null) parts.push(make("p", { class: "why bad" }, String(valueAt("error", row))));
  if (valueAt("status", row) === "complete") {
    parts.push(make("p", {}, "Export its network:"), command(before, id, after));
    if (!data.study.store) {
      parts.push(make("p", { class: "note" }, "This needs the results root with its store (.store), which does not lie " +
        "beside the table that the report was made of; elsewhere name it with --results."));
    }
  } else {
    parts.push(make("p", { class: "note" }, "There is no network to export, as the trial is not complete. See: "),
      command("orchestrator show ", id, after.replace(" --format packed", "")));
  }
  const groups = [["Objectives", data.objectives.map(one => one.name).filter(has)],
    ["Config", names.filter(name => described(name).config && has(name))],
    ["All other columns", names.filter(name => !described(name).config && has(name) && name !== "error")]];
  const absent = names.filter(name => !has(name));
  for (const [title, columns] of groups) if (columns.length) parts.push(make("h3", {}, title), columnTable(columns, row));
  if (absent.length) parts.push(make("p", { class: "note" }, `Null here: ${absent.join(", ")}`));
  return parts;
}

function columnTable(names, row) {
  return make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, ...names.map(name => {
    const { unit, doc } = described(name), value = valueAt(name, row);
    const exact = typeof value === "number" && shown(name, value) !== String(value) ? ` (${value})` : "";
    return make("tr", {}, make("th", { scope: "row", title: doc }, name),
      make("td", {}, shown(name, value) + exact), make("td", {}, unit === "1" || unit === "fraction" ? "" : unit));
  }))));
}

function command(before, id, after) {
  const text = `${before}${id}${after}`;
  const copy = make("button", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; } catch {
      getSelection().selectAllChildren(line);
      copy.textContent = "Selected";
    }
  } }, "Copy");
  const line = make("code", { class: "command" }, text);
  return make("pre", { class: "bar" }, line, copy);
}

document.getElementById("trial-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
