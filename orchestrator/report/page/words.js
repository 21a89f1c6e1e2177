// Data and words: reading the payload, numbers for a person, elements whose text is never read as HTML.

const data = JSON.parse(document.getElementById("data").textContent);

/** JSON of Base64 of gzip. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** An element; strings among the children become text. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (value === true) found.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) found.setAttribute(name, value);
  }
  found.append(...children.filter(child => child !== null && child !== undefined));
  return found;
}

/** The value of an encoded column at a row. */
function at(column, row) {
  if (column.values) return column.values[row];
  const place = column.at[row];
  return place < 0 ? null : column.set[place];
}

const described = name => Object.hasOwn(data.columns, name) ? data.columns[name] : { unit: "", better: null, doc: "" };

function seconds(value) {
  if (value < 60) return `${value < 10 ? +value.toPrecision(3) : value.toFixed(1)} s`;
  const minutes = Math.floor(Math.round(value) / 60), rest = Math.round(value) % 60;
  if (minutes < 60) return `${minutes} min ${String(rest).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60).toLocaleString("en")} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** A value for a person, in the unit of its column. */
function shown(name, value) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  const unit = described(name).unit;
  if (unit === "fraction") return `${(100 * value).toFixed(2)} %`;
  if (unit === "s") return seconds(value);
  if (described(name).config || name === "seed") return String(value);
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(+value.toPrecision(4));
}

/** A mean with its standard deviation, where seeds have one, in as many decimals as the mean has. */
function spread(name, mean, std) {
  const text = shown(name, mean);
  if (mean === null || !std) return text;
  if (described(name).unit === "s") return `${text} ± ${seconds(+std.toPrecision(2))}`;
  const [digits, ...sign] = text.split(" ");
  const told = (std * factor(name)).toFixed((digits.split(".")[1] ?? "").length);
  return Number(told) ? [digits, "±", told, ...sign].join(" ") : text;
}

const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** Text for the chart library, which would read a few tags. */
const safe = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** The same back as plain text. */
const unsafe = text => text.replaceAll("<br>", "; ").replaceAll(/<\/?b>/g, "").replaceAll("&lt;", "<")
  .replaceAll("&gt;", ">").replaceAll("&amp;", "&");

const cut = (text, most = 28) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** The name of an axis of a chart: column, unit and which way is better. */
function axisTitle(name) {
  const { unit, better } = described(name);
  const told = { fraction: " (%)", 1: "", "": "" }[unit] ?? ` (${unit})`;
  return safe(cut(name, 40)) + told + (better ? ` ${better === "max" ? "↑" : "↓"}` : "");
}

const factor = name => (described(name).unit === "fraction" ? 100 : 1);
const scaled = (name, value) => (value === null || value === undefined ? null : value * factor(name));

/** What a person reads of a config leaf's value, numbers in four digits; a null is a value where the leaf may be null. */
function leaf(value) {
  if (value === null || value === undefined) return "none";
  return typeof value === "number" && !Number.isInteger(value) ? String(+value.toPrecision(4)) : String(value);
}

/** The setting of a point in a few words: its values on the axes. */
function settingName(point) {
  const baseline = at(data.points.baseline, point);
  const parts = data.axes
    .map(axis => [axis, at(data.points.config[axis], point)])
    .filter(([, value]) => value !== null)
    .map(([axis, value]) => `${axis.slice(axis.indexOf(".") + 1)} ${leaf(value)}`);
  return [...(baseline ? [`baseline ${baseline}`] : []), ...parts].join(", ") || "the one setting";
}

/** Remembered for this page alone; a browser may refuse to. */
const memory = {
  get(key) { try { return sessionStorage.getItem(`report.${data.study.path}.${key}`); } catch { return null; } },
  set(key, value) { try { sessionStorage.setItem(`report.${data.study.path}.${key}`, value); } catch { /* stays */ } },
};

const announce = text => { document.getElementById("said").textContent = text; };

/** A select with these choices, which calls back with the index chosen. */
function chooser(label, choices, chosen, changed) {
  const select = make("select", { onchange: event => changed(event.target.selectedIndex) },
    ...choices.map((choice, i) => make("option", { selected: i === chosen }, choice)));
  return make("label", {}, `${label} `, select);
}
