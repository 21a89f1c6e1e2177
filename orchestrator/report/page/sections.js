// Effects, heat map, curves, seconds, failures, the study and where its numbers come from.

const why = text => make("p", { class: "why" }, text);
const note = text => make("p", { class: "note" }, text);

/** Positions, ticks and scale of an axis' values: numbers at their values, names side by side. */
function along(one) {
  if (!one.at.length) {
    return { x: one.values.map((_, i) => i), ticks: { tickvals: one.values.map((_, i) => i),
      ticktext: one.values.map(value => safe(cut(leaf(value), 18))),
      tickangle: one.values.map(leaf).join("").length > 20 ? -25 : 0, range: [-0.4, one.values.length - 0.6] } };
  }
  const scale = one.log ? logarithmic(0.9 * Math.min(...one.at), 1.1 * Math.max(...one.at)) : {};
  const each = !one.log && !one.edges.length && one.values.length <= 8;
  return { x: one.at, ticks: each ? { tickvals: one.at, ticktext: one.values.map(leaf) } : scale };
}

function effectSection(section) {
  const { axes, alone, of } = data.effects;
  if (!axes.length || !alone[0].cells.some(n => n)) {
    section.append(why(axes.length ? "No cell is complete yet." : "The cells of this study differ in no leaf but the seed."));
    return;
  }
  const binned = axes.filter(one => one.edges.length).map(one => one.name);
  const rare = axes.filter(one => one.cut).map(one => one.name);
  section.append(note((data.effects.adaptive ? "Mean over all settings with a value, whatever their other leaves; each " +
    "counts once, with the mean of the seeds that it has. With adaptive repeats there is no interval: later seeds have the " +
    "good settings alone." : "Mean over all complete cells with a value, whatever their other leaves; the bars are Student's " +
    "95 % interval over the seeds (none for one seed): how sure the mean is, not how widely the cells lie.") +
    (binned.length ? ` The values of ${binned.join(", ")} are put into bins; a point stands in the middle of its bin.` : "") +
    (rare.length ? ` Of ${rare.join(", ")} the commonest values are shown.` : "") +
    (of > axes.length ? ` The first ${axes.length} of ${of} axes are shown.` : "")));
  axes.forEach((one, i) => section.append(make("h3", {}, one.name), make("div", { class: "charts small" },
    ...data.objectives.map(({ name }) => effectChart(one, alone[i], name)))));
}

function effectChart(one, found, name) {
  return chart(`Effect of ${one.name} on ${name}`, () => {
    const { mean, half } = found.objectives[name], { x, ticks } = along(one);
    const order = x.map((_, i) => i).filter(i => mean[i] !== null).sort((a, b) => x[a] - x[b]);
    const numeric = one.at.length > 0;
    const text = i => `${safe(one.name)} ${safe(leaf(one.values[i]))}<br>${safe(name)}: ${safe(shown(name, mean[i]))}` +
      (half[i] === null ? "" : ` ± ${safe(shown(name, half[i]))}`) + `<br>${plural(found.cells[i], data.effects.adaptive ? "setting" : "cell")}`;
    return {
      traces: [{ type: "scatter", mode: numeric ? "lines+markers" : "markers", x: order.map(i => x[i]),
        y: order.map(i => scaled(name, mean[i])), hoverinfo: "text", hovertext: order.map(text),
        error_y: { type: "data", array: order.map(i => scaled(name, half[i]) ?? 0), thickness: 1.4, width: 4,
          color: colour("front"), visible: half.some(value => value !== null) },
        marker: { size: 8, color: colour("front") }, line: { color: colour("front"), width: 1.6 } }],
      picks: order.map((i, place) => [x[i], 0, place, () => filterTable(one, i)]),
      layout: layout({ xaxis: axis(safe(one.name), ticks), yaxis: axis(axisTitle(name)), margin: { l: 56, r: 12, t: 12, b: 46 } }),
    };
  });
}

function filterTable(one, i) {
  if (one.edges.length) {
    const last = i === one.values.length - 1;
    setFilter(`${one.name}>=${one.edges[i]} ${one.name}${last ? "<=" : "<"}${one.edges[i + 1]}`);
  } else if (one.values[i] !== null) setFilter(`${one.name}=${quoted(one.values[i])}`);
}

function heatSection(section) {
  const { axes, together } = data.effects;
  const names = data.objectives.map(one => one.name);
  if (!together.length) {
    section.append(why("A heat map needs two axes; the cells of this study differ in " +
      (axes.length ? `${axes[0].name} alone.` : "no leaf but the seed.")));
    return;
  }
  let pair = 0, objective = 0;
  const picture = () => {
    const { x, y, z } = together[pair], name = names[objective];
    const values = z[name].map(row => row.map(value => scaled(name, value)));
    const label = (one, i) => safe(cut(leaf(one.values[i]), 18));
    const words = z[name].map(row => row.map(value => (value === null ? "" : shown(name, value).replace(" %", ""))));
    const few = axes[x].values.length * axes[y].values.length <= 120 && box.clientWidth - 150 >= 38 * axes[x].values.length;
    return {
      traces: [{ type: "heatmap", z: values, x: axes[x].values.map((_, i) => i), y: axes[y].values.map((_, i) => i),
        colorscale: "Cividis", reversescale: described(name).better === "min", xgap: 1, ygap: 1, text: words,
        texttemplate: few ? "%{text}" : "", hoverinfo: "text",
        hovertext: z[name].map((row, j) => row.map((value, i) => `${safe(axes[x].name)} ${label(axes[x], i)}<br>` +
          `${safe(axes[y].name)} ${label(axes[y], j)}<br>${safe(name)}: ${safe(shown(name, value))}`)),
        colorbar: { title: { text: axisTitle(name), side: "right" }, thickness: 14, outlinewidth: 0 } }],
      layout: layout({ margin: { l: 60, r: 10, t: 12, b: 50 },
        xaxis: axis(safe(axes[x].name), { tickvals: axes[x].values.map((_, i) => i), showgrid: false,
          ticktext: axes[x].values.map((_, i) => label(axes[x], i)) }),
        yaxis: axis(safe(axes[y].name), { tickvals: axes[y].values.map((_, i) => i), showgrid: false,
          ticktext: axes[y].values.map((_, i) => label(axes[y], i)) }) }),
    };
  };
  const box = chart("Heat map of two axes", picture, { tall: true });
  section.append(note("Means over all complete cells with both values" +
    (data.effects.adaptive ? ", each setting counted once" : "") + "; white or dark gaps are values that no cell has. " +
    "Brighter is better where a column has a better direction."),
  make("div", { class: "controls" },
    chooser("axes", together.map(({ x, y }) => `${axes[x].name} × ${axes[y].name}`), 0, i => { pair = i; box.redraw(); }),
    chooser("objective", names, 0, i => { objective = i; box.redraw(); })), box);
}

function labellingSection(section) {
  const { lines, why: absent } = data.labelling;
  if (absent) { section.append(why(absent)); return; }
  const name = line => [line.strategy, ...Object.entries(line.leaves).filter(([, value]) => value !== null)
    .map(([key, value]) => `${key.slice(key.indexOf(".") + 1)} ${value}`)].join(", ").replaceAll("_", " ");
  const curves = lines.filter(line => line.strategy !== "all_labels");
  const most = Math.max(...curves.flatMap(line => line.labels)), least = Math.min(...curves.flatMap(line => line.labels));
  const heights = lines.flatMap(line => line.mean).map(v => 100 * v);
  const low = Math.min(...heights), high = Math.max(...heights), margin = 0.12 * (high - low) || 1;
  const picture = () => {
    const traces = curves.flatMap((line, i) => curveTraces(line, safe(cut(name(line), 60)), i));
    for (const line of lines.filter(one => one.strategy === "all_labels")) {
      traces.push({ type: "scatter", mode: "lines", x: [least, most], y: [line.mean[0], line.mean[0]].map(v => 100 * v),
        name: safe(cut(name(line), 60)), showlegend: true, hoverinfo: "name",
        line: { color: colour("ink"), dash: "dash", width: 1.3 } });
    }
    return { traces, layout: layout({ showlegend: true, margin: { l: 56, r: 12, t: 60, b: 46 },
      xaxis: axis("labelled images"), yaxis: axis(axisTitle("accuracy"), { range: [low - margin, high + margin] }) }) };
  };
  section.append(note("df.al.curve(): mean test accuracy over the seeds at each number of labels; shaded is Student's " +
    "95 % interval of the mean. The interval of few seeds is wide; the axis shows the means and may cut it off."),
  make("div", { class: "charts wide" }, chart("Accuracy by number of labels", picture, { tall: true })));
}

function curveTraces(line, name, i) {
  const { color, dash, symbol } = lineStyle(i);
  const y = line.mean.map(v => scaled("accuracy", v));
  const edge = values => values.map((v, k) => scaled("accuracy", v ?? line.mean[k]));
  const band = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { width: 0, color },
    legendgroup: String(i) };
  return [
    { ...band, x: line.labels, y: edge(line.low) },
    { ...band, x: line.labels, y: edge(line.high), fill: "tonexty", fillcolor: `${color}22` },
    { type: "scatter", mode: "lines+markers", x: line.labels, y, name, legendgroup: String(i), showlegend: true,
      line: { color, dash, width: 2 }, marker: { symbol, size: 7, color }, hoverinfo: "text",
      hovertext: y.map((v, k) => `${name}<br>${line.labels[k]} labels: ${shown("accuracy", line.mean[k])}<br>` +
        plural(line.n[k], "seed")) },
  ];
}

function trainingSection(section) {
  const { kinds: found, why: absent } = data.training;
  if (absent) { section.append(why(absent)); return; }
  section.append(note("Shaded: 10 to 90 % of all stages at an epoch, with their median as a dashed line; thin lines are " +
    "single stages, those of the front first. Click a line for its trial."));
  const titles = { train: "dense training", compress: "compression" };
  const both = [["val_accuracy", "validation accuracy (%) ↑"], ["loss", "training loss (nat) ↓"]];
  section.append(make("div", { class: "charts" }, ...found.flatMap(kind => both.map(([name, title]) =>
    chart(`${title} of ${titles[kind.kind]}, ${plural(kind.stages, "stage")}`, () => trainingPicture(kind, name, title,
      `${titles[kind.kind]}: ${plural(kind.stages, "stage")}`))))));
}

function trainingPicture(kind, name, title, heading) {
  const unit = name === "loss" ? 1 : 100, of = values => values.map(v => (v === null ? null : v * unit));
  const { epoch, q0, q1, q2 } = kind[name], picks = [];
  const edge = { type: "scatter", mode: "lines", x: epoch, hoverinfo: "skip", showlegend: false,
    line: { width: 0, color: colour("other") } };
  const traces = [{ ...edge, y: of(q0) }, { ...edge, y: of(q2), fill: "tonexty", fillcolor: `${colour("other")}33` }];
  for (const line of kind.lines) {
    line.epoch.forEach((x, k) => picks.push([x, traces.length, k, () => openTrial(line.trial)]));
    traces.push({ type: "scatter", mode: line.epoch.length > 1 ? "lines" : "markers", x: line.epoch, y: of(line[name]),
      showlegend: false, opacity: 0.6, line: { width: 1, color: colour("front") }, hoverinfo: "text",
      hovertext: line.epoch.map((x, k) => `trial ${safe(line.trial)}<br>epoch ${x}: ` +
        (line[name][k] === null ? "-" : name === "loss" ? line[name][k].toPrecision(4) : shown("accuracy", line[name][k]))) });
  }
  traces.push({ type: "scatter", mode: "lines", x: epoch, y: of(q1), hoverinfo: "skip", showlegend: false,
    line: { width: 2, dash: "dash", color: colour("base") } });
  return { traces, picks, layout: layout({ xaxis: axis("epoch", epoch.at(-1) <= 12 ? { dtick: 1 } : {}), yaxis: axis(title),
    title: { text: heading, font: { size: 13 }, x: 0.02 } }) };
}

function secondsSection(section) {
  const found = data.seconds;
  if (found.why) { section.append(why(found.why)); return; }
  const saved = found.each > 0 ? 1 - found.once / found.each : 0;
  section.append(make("p", {}, `Sharing: ${seconds(found.once)} of busy time in place of ${seconds(found.each)}, had every ` +
    `trial run its own path of stages: ${(found.each / found.once).toFixed(2)} times, ${(100 * saved).toFixed(0)} % saved.`),
  note(`The stages were finished within ${seconds(found.wall)}, in ${plural(found.runs, "run")}; a stage that an earlier ` +
    "study left counts with the seconds of its own time." +
    (found.failed ? ` ${seconds(found.failed)} went into stages that failed.` : "")));
  const names = { select: "select: choosing labels", train: "train: dense networks", compress: "compress",
    evaluate: "evaluate: measuring" };
  const most = Math.max(...found.kinds.flatMap(one => [one.once, one.each]));
  const [unit, per] = most > 7200 ? ["hours (h)", 3600] : most > 600 ? ["minutes (min)", 60] : ["seconds (s)", 1];
  const picture = () => {
    const kinds = [...found.kinds].reverse();
    const bar = (key, name, color, pattern) => ({ type: "bar", orientation: "h", name, x: kinds.map(one => one[key] / per),
      y: kinds.map(one => names[one.kind]), hoverinfo: "text", showlegend: true, text: kinds.map(one => seconds(one[key])),
      textposition: "outside", cliponaxis: false, marker: { color, line: { color, width: 1 },
        pattern: pattern ? { shape: pattern, fgcolor: color, bgcolor: colour("page"), size: 7, solidity: 0.35 } : {} },
      hovertext: kinds.map(one => `${one.kind}: ${seconds(one[key])}<br>${plural(one.stages, "stage")}`) });
    return { traces: [bar("each", "if every trial ran its own path", colour("other"), "/"),
      bar("once", "as it ran, shared", colour("bar"), "")],
    layout: layout({ showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "reversed" },
      barmode: "group", xaxis: axis(`busy ${unit}`, { range: [0, (innerWidth < 500 ? 1.6 : 1.18) * most / per] }), yaxis: axis("", { showgrid: false }) }) };
  };
  section.append(make("div", { class: "charts wide" }, chart("Busy seconds by kind of stage", picture)));
}

const few = value => (value === null ? "-" : String(+value.toPrecision(3)));

function latencySection(section) {
  const { why: absent, kinds: found, settings: told, machines, versions } = data.latency;
  if (absent) { section.append(why(absent)); return; }
  section.append(note("Taken after all training, one process and one network at a time, turn by turn with its dense parent; " +
    "a time is the median of the calls with all images of a batch. The ratio is that of the dense parent in OpenVINO's fp32 " +
    `to this network: above 1 the network is faster. Taken on ${machines.join("; ")}, with ${versions.join("; ")}.`));
  const head = ["runtime", "batch", "threads", "turns", "calls", "networks", "median (ms)", "fastest to slowest (ms)",
    "ratio", "ratio, same runtime", "least agreement"];
  const rows = found.map(one => [one.runtime, one.batch, one.threads, one.turns, one.calls,
    one.complete === one.networks ? one.networks : `${one.complete} of ${one.networks}`, few(one.median),
    `${few(one.least)} to ${few(one.most)}`, few(one.ratio), few(one.same), shown("accuracy", one.agreement)]);
  section.append(scrolled("latency-kinds", head, rows, 1));
  for (const one of found) for (const text of one.errors) {
    section.append(make("p", { class: "note bad" }, `${one.runtime}, batch ${one.batch}: ${text}`));
  }
  if (!told.length) return;
  const lines = told.flatMap(({ point, values }) => values.map(one => [
    make("button", { type: "button", onclick: () => openSetting(point) }, settingName(point)),
    isMember(point) ? "front" : "", one.runtime, one.batch, one.n, few(one.latency_ms),
    `${few(one.latency_q1_ms)} to ${few(one.latency_q3_ms)}`, few(one.latency_ratio), shown("accuracy", one.runtime_agreement)]));
  section.append(make("details", { class: "more", open: lines.length <= 24 },
    make("summary", {}, `The front and the baselines: ${plural(told.length, "setting")}, means over their networks`),
    scrolled("latency-settings", ["setting", "", "runtime", "batch", "networks", "ms", "quartiles (ms)", "ratio", "agreement"],
      lines, 3)));
}

/** A table that scrolls; from column `first` on cells hold numbers. */
function scrolled(id, head, rows, first) {
  const style = i => (i >= first ? "number" : null);
  return make("div", { class: "scroll high", tabindex: "0" }, make("table", { id },
    make("thead", {}, make("tr", {}, ...head.map((name, i) => make("th", { scope: "col", class: style(i) }, name)))),
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((cell, i) =>
      make("td", { class: style(i) }, typeof cell === "number" ? cell.toLocaleString("en") : cell)))))));
}

function failureSection(section) {
  if (!data.failures.length) {
    section.append(make("p", {}, data.counts.unfinished ? "None so far." : "No trial failed."));
    return;
  }
  section.append(make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...["trials", "status", "error", "some of them"].map(name =>
      make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...data.failures.map(one => make("tr", {},
      make("td", { class: "number" }, one.trials.toLocaleString("en")), make("td", { class: "bad" }, one.status),
      make("td", { class: "text" }, one.error),
      make("td", {}, ...one.some.map(id => make("button", { type: "button", onclick: () => openTrial(id) }, id)))))))));
}

function facts(entries) {
  return make("dl", { class: "facts" }, ...entries.flatMap(([name, value]) =>
    [make("dt", {}, name), make("dd", {}, String(value))]));
}

function studySection(section) {
  if (data.study.why) section.append(why(data.study.why));
  if (data.study.text) section.append(make("pre", { tabindex: "0" }, data.study.text));
}

function provenanceSection(section) {
  const told = values => values.map(({ value, trials }) => `${value} (${plural(trials, "trial")})`).join(", ");
  section.append(facts([["tables", data.study.path], ["report made (UTC)", data.study.made],
    ["by", `sweep-orchestrator ${data.study.version}`], ...Object.entries(data.times).map(([name, value]) => [name, value]),
    ...data.provenance.map(one => [one.name, told(one.values) + (one.more ? `, and ${one.more} more` : "")])]));
}

function columnSection(section) {
  const head = ["column", "unit", "better", "deterministic", "what it is"];
  const certain = value => ({ true: "yes", false: "no" }[value] ?? "-");
  section.append(note("A deterministic column is equal bit for bit on one kind of machine at a fixed thread count; the " +
    "others are observations. Missing is null, never 0."),
  make("details", {}, make("summary", {}, `${plural(Object.keys(data.columns).length, "column")}`),
    make("div", { class: "scroll high", tabindex: "0" }, make("table", {},
      make("thead", {}, make("tr", {}, ...head.map(name => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...Object.entries(data.columns).map(([name, one]) => make("tr", {}, make("td", {}, make("code", {}, name)),
        ...[one.unit || "-", one.better || "-", certain(one.deterministic)].map(text => make("td", {}, text)),
        make("td", { class: "text" }, one.doc))))))));
}
