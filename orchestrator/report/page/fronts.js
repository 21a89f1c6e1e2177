// The front: each pair of objectives, three of them, and all axes and objectives side by side.

const points = data.points;
const pointCount = points.rows.length;
const indices = [...Array(pointCount).keys()];
const isBaseline = i => at(points.role, i) === "baseline";
const isMember = i => points.front[i] === 1;

function pointText(i, names) {
  const lines = names.map(name => `${safe(name)}: ${safe(spread(name, points.mean[name][i], points.std[name][i]))}`);
  const seeds = points.seeds[i] ? ` (${plural(points.seeds[i], "seed")})` : "";
  return [`<b>${safe(cut(settingName(i), 70))}</b>${isMember(i) ? ", on the front" : ""}${seeds}`, ...lines].join("<br>");
}

const CROWD = 200;
const crowded = pointCount > CROWD;

/** The three kinds of points, told apart by shape and hue. */
function kinds() {
  return [
    { name: "other settings", own: indices.filter(i => !isMember(i) && !isBaseline(i)),
      marker: { symbol: "circle", size: crowded ? 5 : 7, color: colour("other"), opacity: 0.75 } },
    { name: "baselines", own: indices.filter(isBaseline),
      marker: { symbol: "square-open", size: 9, color: colour("base"), line: { width: 2 } } },
    { name: "front", own: indices.filter(isMember),
      marker: { symbol: "diamond", size: crowded ? 8 : 11, color: colour("front"), line: { width: 1, color: colour("page") } } },
  ];
}

const seedCounts = new Set(indices.filter(i => !isBaseline(i) && points.seeds[i]).map(i => points.seeds[i]));

/** Whether a point is hollow: it stands on one seed while others have several. */
const isHollow = i => seedCounts.size > 1 && points.seeds[i] === 1 && !isBaseline(i);

const hollowLast = own => [...own.filter(i => !isHollow(i)), ...own.filter(isHollow)];

const marked = (marker, own) => ({ ...marker, symbol: own.map(i => marker.symbol + (isHollow(i) ? "-open" : "")),
  line: { ...marker.line, width: own.map(i => (isHollow(i) ? 1.6 : marker.line?.width ?? 0)),
    color: own.map(i => (isHollow(i) ? marker.color : marker.line?.color ?? marker.color)) } });

const names2d = () => [...new Set([...data.objectives.map(one => one.name), ...data.measured])];

/** Standard deviations in the colour of their points; without one there is no bar. */
function bars(name, own, marker) {
  const array = own.map(i => scaled(name, points.std[name][i]) || NaN);
  return !crowded && array.some(value => value) ? { type: "data", array, thickness: 1.2, width: 3, color: marker.color } : undefined;
}

const LOGARITHMIC_FROM = 4, FAR = 0.5, MARGIN = 0.06;

/** Which numbers an axis shows: all settings with their bars, baselines that are near; and whether in powers of ten. */
function extent(name, known, whole) {
  const own = known.filter(i => !isBaseline(i)), inside = own.length ? own : known;
  const of = i => scaled(name, points.mean[name][i]), bar = i => (crowded ? 0 : scaled(name, points.std[name][i] ?? 0));
  const means = inside.map(of), least = Math.min(...means), most = Math.max(...means);
  const log = factor(name) === 1 && least > 0 && most >= LOGARITHMIC_FROM * least;
  const on = log ? Math.log10 : value => value, off = log ? value => 10 ** value : value => value;
  const lows = inside.map(i => of(i) - bar(i)).filter(value => !log || value > 0);
  let low = on(Math.min(least, ...lows)), high = on(Math.max(...inside.map(i => of(i) + bar(i))));
  const room = FAR * (high - low) || 0.1 * Math.abs(high) || 1;
  const isNear = value => whole || (value >= low - room && value <= high + room);
  const near = known.filter(isBaseline).filter(i => (!log || of(i) > 0) && isNear(on(of(i))));
  const ends = near.flatMap(i => [of(i), of(i) - bar(i), of(i) + bar(i)]).filter(value => !log || value > 0).map(on);
  low = Math.min(low, ...ends); high = Math.max(high, ...ends);
  const margin = MARGIN * (high - low) || 0.05 * Math.abs(high) || 1;
  return { log, range: [low - margin, high + margin], low: off(low - margin), high: off(high + margin) };
}

/** Where a value is drawn, and the edge of the chart beyond which it lies, if it does. */
function edge(values, extents) {
  const sides = [["left", "right"], ["down", "up"]];
  const at = values.map((value, k) => Math.min(Math.max(value, extents[k].low), extents[k].high));
  const k = values.findIndex((value, place) => value !== at[place]);
  return { at, beyond: k < 0 ? "" : sides[k][values[k] < at[k] ? 0 : 1] };
}

let wholeAxes = false;

function projection(x, y) {
  const traces = [], picks = [];
  const both = indices.filter(i => points.mean[x][i] !== null && points.mean[y][i] !== null);
  const [across, up] = both.length ? [extent(x, both, wholeAxes), extent(y, both, wholeAxes)] : [{}, {}];
  const raster = data.rasters.find(one => one.x === x && one.y === y);
  if (raster) {
    traces.push({ type: "heatmap", x: raster.xs.map(v => scaled(x, v)), y: raster.ys.map(v => scaled(y, v)),
      z: raster.counts.map(row => row.map(n => (n ? Math.log10(n) : null))), hoverinfo: "skip", showscale: false,
      colorscale: [[0, colour("grid")], [1, colour("other")]] });
  }
  const put = (name, own, marker) => {
    if (!own.length) return;
    own.forEach((i, place) => picks.push([points.mean[x][i], traces.length, place, () => openSetting(i)]));
    const places = own.map(i => place(i).at), outside = marker.symbol.startsWith("triangle");
    traces.push({ type: "scatter", mode: "markers", name: safe(name), marker: marked(marker, own), hoverinfo: "text",
      showlegend: true, cliponaxis: !outside, x: places.map(at => at[0]), y: places.map(at => at[1]),
      error_x: outside ? undefined : bars(x, own, marker), error_y: outside ? undefined : bars(y, own, marker),
      hovertext: own.map(i => pointText(i, [y, x])) });
  };
  const place = i => edge([scaled(x, points.mean[x][i]), scaled(y, points.mean[y][i])], [across, up]);
  for (const { name, own, marker } of kinds()) {
    const known = hollowLast(own.filter(i => points.mean[x][i] !== null && points.mean[y][i] !== null));
    const beyond = i => (isBaseline(i) ? place(i).beyond : "");
    put(name, known.filter(i => !beyond(i)), marker);
    for (const side of ["left", "right", "down", "up"]) {
      put(`${name} farther ${side}`, known.filter(i => beyond(i) === side), { ...marker, symbol: `triangle-${side}-open` });
    }
  }
  const scale = one => ({ ...(one.log ? logarithmic(one.low, one.high) : {}), range: one.range });
  return { traces, picks, layout: layout({ showlegend: true, xaxis: axis(axisTitle(x), scale(across)),
    yaxis: axis(axisTitle(y), scale(up)) }) };
}

function frontSection(section) {
  const members = points.front.filter(Boolean).length;
  const remarks = data.remarks.map(text => make("p", { class: "note" }, text));
  if (!indices.some(i => data.objectives.every(one => points.mean[one.name][i] !== null))) {
    section.append(make("p", { class: "why" }, "No trial has all objectives yet, so there is no front."), ...remarks);
    return;
  }
  const wishes = data.objectives.map(one => `${one.name} ${one.direction}${one.within ? ` within ${one.within}` : ""}`);
  const left = Object.entries(data.left_out).map(([why, n]) => `${n.toLocaleString("en")} ${why}`).join(", ");
  const all = pointCount - indices.filter(isBaseline).length;
  section.append(make("p", { class: "note" },
    `${wishes.join(", ")}. A point is the mean over the seeds` + (crowded ? "; its standard deviation is in its label" :
      ", its bars one standard deviation") + `; diamonds are the ` +
    `${plural(members, "setting")} on the front over all objectives together.` +
    (seedCounts.size > 1 ? " A hollow point stands on a single seed." : "") +
    (all < points.of && data.rasters.length ? ` ${all.toLocaleString("en")} of ${points.of.toLocaleString("en")} ` +
      "settings are drawn one by one, all others counted in the shaded raster (logarithmic)." : "") +
    (left ? ` Trials that could not be compared: ${left}.` : "") +
    " Click a point for its trials; with the keyboard, arrow keys walk through a chart and Enter opens."),
    ...remarks);
  const boxes = data.pairs.map(([x, y]) => chart(`${y} against ${x}`, () => projection(x, y)));
  const whole = make("input", { type: "checkbox", id: "whole", onchange: event => {
    wholeAxes = event.target.checked;
    boxes.forEach(box => box.redraw());
  } });
  if (indices.some(isBaseline)) section.append(make("div", { class: "controls" }, make("label", {}, whole,
    "wide axes, which hold every baseline")));
  section.append(make("div", { class: "charts" }, ...boxes));
  section.append(memberTable(indices.filter(isMember)));
}

function memberTable(own) {
  const measured = data.objectives.map(one => one.name);
  const first = data.objectives[0];
  const order = own.slice(0, 200).sort((a, b) => (points.mean[first.name][a] - points.mean[first.name][b]) *
    (first.direction === "min" ? 1 : -1));
  const head = make("tr", {}, make("th", { scope: "col" }, "Setting"), make("th", { scope: "col" }, "seeds"),
    ...measured.map(name => make("th", { class: "number", scope: "col" }, name)));
  const rows = order.map(i => make("tr", {},
    make("td", { class: "text" }, make("button", { type: "button", onclick: () => openSetting(i) }, settingName(i))),
    make("td", { class: "number" }, String(points.seeds[i] ?? "-")),
    ...measured.map(name => make("td", { class: "number" }, spread(name, points.mean[name][i], points.std[name][i])))));
  return make("details", { open: own.length <= 12, class: "more" },
    make("summary", {}, `The front as a table: ${plural(own.length, "setting")}` +
      (own.length > 200 ? ", the first 200" : "")),
    make("div", { class: "scroll high" }, make("table", { class: "members" }, make("thead", {}, head),
      make("tbody", {}, ...rows))));
}

function solidSection(section) {
  const names = names2d();
  if (names.length < 3) {
    section.append(make("p", { class: "why" }, "Fewer than three measured columns differ between the trials."));
    return;
  }
  const chosen = [1, 2, 0];
  const picture = () => {
    const [x, y, z] = chosen.map(i => names[i]), narrow = box.clientWidth < 500, far = narrow ? 1.3 : 1;
    const traces = [], picks = [];
    for (const { name, own, marker } of kinds()) {
      const known = own.filter(i => [x, y, z].every(column => points.mean[column][i] !== null));
      if (!known.length) continue;
      known.forEach((i, place) => picks.push([points.mean[x][i], traces.length, place, () => openSetting(i)]));
      traces.push({ type: "scatter3d", mode: "markers", name: safe(name), hoverinfo: "text", showlegend: true,
        marker: { symbol: marker.symbol, size: name === "front" ? 5 : 3.5, color: marker.color },
        x: known.map(i => scaled(x, points.mean[x][i])), y: known.map(i => scaled(y, points.mean[y][i])),
        z: known.map(i => scaled(z, points.mean[z][i])), hovertext: known.map(i => pointText(i, [z, x, y])) });
    }
    // Letters in 3-D are drawn as shapes, which an arrow is not; a narrow chart has room for the name alone.
    const titled = name => (narrow ? safe(cut(name, 14)) : axisTitle(name).replace(" ↑", ", max").replace(" ↓", ", min"));
    const solid = name => ({ title: { text: titled(name), font: { size: 12 } }, gridcolor: colour("line"),
      backgroundcolor: colour("panel"), showbackground: true, zeroline: false });
    return { traces, picks, layout: layout({ margin: { l: 0, r: 0, t: 30, b: 0 }, showlegend: true,
      scene: { aspectmode: "cube", xaxis: solid(x), yaxis: solid(y), zaxis: solid(z), camera: { eye: { x: 1.5 * far, y: -1.7 * far, z: 0.75 * far }, center: { x: 0, y: 0, z: -0.14 } } } }) };
  };
  const box = chart("Three columns against each other; turn it with the mouse", picture, { tall: true });
  section.append(make("div", { class: "controls" }, ...["across", "deep", "up"].map((label, i) =>
    chooser(label, names, chosen[i], place => { chosen[i] = place; box.redraw(); }))), box);
}

/** Positions in [0, 1] of a column's values, and its ticks. */
function rail(name, values, isAxis) {
  const known = values.filter(value => value !== null && value !== undefined);
  const drawn = data.drawn_axes.includes(name);
  if (!isAxis || (known.length && known.every(value => typeof value === "number") && (drawn || new Set(known).size > 12))) {
    const log = data.log_axes.includes(name), on = log ? Math.log : value => value, off = log ? Math.exp : value => value;
    const low = on(Math.min(...known)), high = on(Math.max(...known)), width = high - low || 1;
    const ticks = [0, 0.25, 0.5, 0.75, 1].map(y => [y, shown(name, +off(low + y * width).toPrecision(isAxis ? 3 : 4))]);
    return { place: value => (value === null || value === undefined ? null : (on(value) - low) / width), ticks };
  }
  const numbers = known.every(value => typeof value === "number");
  const different = [...new Set(numbers ? [...values].sort((a, b) => a - b).map(leaf) : values.map(leaf))];
  const gap = Math.max(1, different.length - 1);
  const step = Math.ceil(different.length / 20);
  return { place: value => (different.length === 1 ? 0.5 : different.indexOf(leaf(value)) / gap),
    ticks: different.map((value, i) => [different.length === 1 ? 0.5 : i / gap, cut(value, 14)])
      .filter((_, i) => i % step === 0) };
}

const MOST_PARALLEL = 400;

function parallelSection(section) {
  const measured = data.objectives.map(one => one.name);
  const cells = indices.filter(i => !isBaseline(i) && measured.every(name => points.mean[name][i] !== null));
  const varied = data.axes.filter(name => new Set(cells.map(i => at(points.config[name], i))).size > 1);
  const columns = [...varied, ...measured];
  if (columns.length < 2 || !cells.length) {
    section.append(make("p", { class: "why" }, "There is nothing to compare yet: no setting has all objectives."));
    return;
  }
  const others = cells.filter(i => !isMember(i)), members = cells.filter(isMember);
  const step = Math.ceil(Math.max(others.length, members.length) / MOST_PARALLEL);
  const drawn = [others, members].flatMap(all => all.filter((_, i) => i % step === 0));
  const faint = n => Math.min(1, Math.max(0.25, 40 / n));
  const picture = () => {
    const isAxis = name => Object.hasOwn(points.config, name);
    const value = (name, i) => (isAxis(name) ? at(points.config[name], i) : points.mean[name][i]);
    const rails = columns.map(name => rail(name, cells.map(i => value(name, i)), isAxis(name)));
    const traces = [], picks = [];
    for (const i of drawn) {
      const member = isMember(i);
      columns.forEach((_, place) => picks.push([place * 1e6 + i, traces.length, place, () => openSetting(i)]));
      const text = pointText(i, measured);
      traces.push({ type: "scatter", mode: "lines+markers", x: columns.map((_, place) => place),
        y: columns.map((name, place) => rails[place].place(value(name, i))), hoverinfo: "text",
        hovertext: columns.map(() => text), opacity: member ? faint(members.length / step) : 0.35, marker: { size: member ? 7 : 5,
          symbol: member ? "diamond" : "circle" },
        line: { color: colour(member ? "front" : "other"), width: member ? 1 + 1.4 * faint(members.length / step) : 1 } });
    }
    const notes = rails.flatMap((one, place) => one.ticks.map(([y, text]) => ({ x: place, y, text: safe(text),
      showarrow: false, xanchor: place === columns.length - 1 ? "right" : "left", xshift: place === columns.length - 1 ?
        -5 : 5, yshift: 8, font: { size: 11, color: colour("ink") }, bgcolor: colour("page"), opacity: 0.85 })));
    return { traces, picks, layout: layout({ annotations: notes, margin: { l: 20, r: 64, t: 12, b: 60 },
      xaxis: axis("", { tickvals: columns.map((_, i) => i), ticktext: columns.map(axisTitle), showgrid: true,
        gridcolor: colour("other"), range: [-0.15, columns.length - 0.85], fixedrange: true, ticklabeloverflow: "allow" }),
      yaxis: axis("", { showticklabels: false, showgrid: false, showline: false, ticks: "", range: [-0.06, 1.12], fixedrange: true }) }) };
  };
  section.append(make("p", { class: "note" }, "Each line is a setting, from its values on the axes to the means of its " +
    "objectives; blue lines with diamonds are on the front." + (step > 1 ? ` One setting in ${step} is drawn.` : "")));
  const box = chart("Parallel coordinates of axes and objectives", picture, { tall: true });
  box.style.minWidth = `${Math.min(7 * columns.length, 60)}rem`;
  section.append(make("div", { class: "scroll" }, box));
}
