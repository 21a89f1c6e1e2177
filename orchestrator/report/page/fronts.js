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

const names2d = () => [...new Set([...data.objectives.map(one => one.name), ...data.measured])];

function bars(name, own) {
  const error = own.map(i => scaled(name, points.std[name][i]));
  return !crowded && error.some(value => value) ? { type: "data", array: error, thickness: 1.2, width: 3 } : undefined;
}

function projection(x, y) {
  const traces = [], picks = [];
  const raster = data.rasters.find(one => one.x === x && one.y === y);
  if (raster) {
    traces.push({ type: "heatmap", x: raster.xs.map(v => scaled(x, v)), y: raster.ys.map(v => scaled(y, v)),
      z: raster.counts.map(row => row.map(n => (n ? Math.log10(n) : null))), hoverinfo: "skip", showscale: false,
      colorscale: [[0, colour("grid")], [1, colour("other")]] });
  }
  for (const { name, own, marker } of kinds()) {
    const known = own.filter(i => points.mean[x][i] !== null && points.mean[y][i] !== null);
    if (!known.length) continue;
    known.forEach((i, place) => picks.push([points.mean[x][i], traces.length, place, () => openSetting(i)]));
    traces.push({ type: "scatter", mode: "markers", name: safe(name), marker, hoverinfo: "text", showlegend: true,
      x: known.map(i => scaled(x, points.mean[x][i])), y: known.map(i => scaled(y, points.mean[y][i])),
      error_x: dim(bars(x, known), marker), error_y: dim(bars(y, known), marker),
      hovertext: known.map(i => pointText(i, [y, x])) });
  }
  return { traces, picks, layout: layout({ showlegend: true, xaxis: axis(axisTitle(x)), yaxis: axis(axisTitle(y)) }) };
}

const dim = (error, marker) => error && { ...error, color: marker.color };

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
    (all < points.of ? ` ${all.toLocaleString("en")} of ${points.of.toLocaleString("en")} settings are drawn one by ` +
      "one, all others counted in the shaded raster (logarithmic)." : "") +
    (left ? ` Trials that could not be compared: ${left}.` : "") +
    " Click a point for its trials; with the keyboard, arrow keys walk through a chart and Enter opens."),
    ...remarks);
  section.append(make("div", { class: "charts" }, ...data.pairs.map(([x, y]) =>
    chart(`${y} against ${x}`, () => projection(x, y)))));
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
    const [x, y, z] = chosen.map(i => names[i]), far = box.clientWidth < 500 ? 1.25 : 1;
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
    const solid = name => ({ title: { text: axisTitle(name), font: { size: 12 } }, gridcolor: colour("line"),
      backgroundcolor: colour("panel"), showbackground: true, zeroline: false });
    return { traces, picks, layout: layout({ margin: { l: 0, r: 0, t: 30, b: 0 }, showlegend: true,
      scene: { xaxis: solid(x), yaxis: solid(y), zaxis: solid(z), camera: { eye: { x: 1.5 * far, y: -1.7 * far, z: 0.75 * far }, center: { x: 0, y: 0, z: -0.14 } } } }) };
  };
  const box = chart("Three columns against each other; turn it with the mouse", picture, { tall: true });
  section.append(make("div", { class: "controls" }, ...["across", "deep", "up"].map((label, i) =>
    chooser(label, names, chosen[i], place => { chosen[i] = place; box.redraw(); }))), box);
}

/** Positions in [0, 1] of a column's values, and its ticks. */
function rail(name, values, isAxis) {
  const known = values.filter(value => value !== null && value !== undefined);
  if (!isAxis || (known.length && known.every(value => typeof value === "number") && new Set(known).size > 12)) {
    const low = Math.min(...known), high = Math.max(...known), width = high - low || 1;
    const ticks = [0, 0.25, 0.5, 0.75, 1].map(y => [y, shown(name, +(low + y * width).toPrecision(isAxis ? 3 : 4))]);
    return { place: value => (value === null || value === undefined ? null : (value - low) / width), ticks };
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
    return { traces, picks, layout: layout({ annotations: notes, margin: { l: 20, r: 20, t: 12, b: 60 },
      xaxis: axis("", { tickvals: columns.map((_, i) => i), ticktext: columns.map(axisTitle), showgrid: true,
        gridcolor: colour("other"), range: [-0.15, columns.length - 0.85], fixedrange: true }),
      yaxis: axis("", { showticklabels: false, showgrid: false, showline: false, ticks: "", range: [-0.06, 1.12], fixedrange: true }) }) };
  };
  section.append(make("p", { class: "note" }, "Each line is a setting, from its values on the axes to the means of its " +
    "objectives; blue lines with diamonds are on the front." + (step > 1 ? ` One setting in ${step} is drawn.` : "")));
  const box = chart("Parallel coordinates of axes and objectives", picture, { tall: true });
  box.style.minWidth = `${Math.min(7 * columns.length, 60)}rem`;
  section.append(make("div", { class: "scroll" }, box));
}
