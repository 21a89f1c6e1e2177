// Charts: drawn when they come into view, again when the theme changes, walked through with the arrow keys.

const charts = [];
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Okabe and Ito, Color Universal Design, 2008: told apart with any colour vision.
const hues = () => [colour("front"), "#d55e00", "#009e73", "#cc79a7", "#e69f00", dark() ? "#b3b9c0" : "#444a52"];
const dashes = ["solid", "dash", "dot", "dashdot"];
const marks = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];
const dark = () => document.documentElement.dataset.theme === "dark";

/** Style of the i-th line of a chart: hue and mark first, then dash. */
function lineStyle(i) {
  const all = hues();
  return { color: all[i % all.length], dash: dashes[Math.floor(i / all.length) % dashes.length],
    symbol: marks[i % marks.length] };
}

function axis(title, more = {}) {
  return { title: { text: title, standoff: 8, font: { size: 13 } }, gridcolor: colour("grid"), zeroline: false,
    linecolor: colour("line"), tickcolor: colour("line"), automargin: true, ...more };
}

const MANTISSAS = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9]];

/** A logarithmic axis from `low` to `high`, with numbers at the ticks; the library writes a 2 for 20 and for 200. */
function logarithmic(low, high) {
  const first = Math.floor(Math.log10(low)), decades = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, i) => first + i);
  const inside = mantissas => decades.flatMap(decade => mantissas.map(one => +(one * 10 ** decade).toPrecision(3)))
    .filter(value => value >= low && value <= high);
  const tickvals = MANTISSAS.map(inside).find(found => found.length >= 3) ?? inside(MANTISSAS.at(-1));
  return { type: "log", tickvals, ticktext: tickvals.map(shortNumber) };
}

const shortNumber = value => (value >= 1e4 ? Intl.NumberFormat("en", { notation: "compact" }).format(value) :
  value < 1e-3 ? value.toExponential().replace("e-", "e−") : String(value));

function layout(more = {}) {
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink"), size: 12 },
    margin: { l: 56, r: 14, t: 30, b: 46 }, hovermode: "closest", hoverlabel: { align: "left" }, showlegend: false,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, ...more };
}

const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  displayModeBar: false };

/**
 * A chart that is drawn once it comes near the view.
 * `picture()` gives {traces, layout, picks}; `picks` are [x, curve, point, what to open], which clicks and keys reach.
 */
function chart(about, picture, { tall = false, bar = false } = {}) {
  const box = make("div", { class: tall ? "chart tall" : "chart", role: "group", "aria-label": about, tabindex: "0" });
  const one = { box, about, picture, drawn: false, picks: [], at: -1, bar };
  box.addEventListener("keydown", event => walk(one, event));
  box.addEventListener("blur", () => { if (one.at >= 0) Plotly.Fx.unhover(box); });
  charts.push(one);
  watcher.observe(box);
  one.redraw = () => { if (one.drawn) draw(one); };
  box.redraw = one.redraw;
  return box;
}

const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const one = charts.find(found => found.box === entry.target);
    if (entry.isIntersecting && !one.drawn) draw(one);
  }
}, { rootMargin: "300px 0px" });

function draw(one) {
  const { traces, layout: how, picks = [] } = one.picture();
  const first = !one.drawn;
  one.drawn = true;
  one.picks = picks.map(([x, curve, point, open]) => ({ x, curve, point, open })).sort((a, b) => a.x - b.x);
  try {
    Plotly.react(one.box, traces, how, { ...settings, displayModeBar: one.bar ? "hover" : false });
  } catch (error) {
    one.box.replaceChildren(make("p", { class: "why" }, `This browser cannot draw the chart: ${error.message}`));
    return;
  }
  if (first && picks.length) one.box.on("plotly_click", event => clicked(one, event.points));
  one.box.dataset.drawn = "yes";
}

function clicked(one, points) {
  for (const { curveNumber, pointNumber } of points) {
    const pick = one.picks.find(found => found.curve === curveNumber && found.point === pointNumber);
    if (pick) { pick.open(); return; }
  }
}

/** Arrow keys go from point to point, Enter opens one. */
function walk(one, event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const last = one.picks.length - 1;
  if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && one.at >= 0) {
    event.preventDefault();  // or the same key presses the button that has the focus next
    one.picks[one.at].open();
    return;
  }
  if (event.key === "Home") one.at = 0;
  else if (event.key === "End") one.at = last;
  else if (step) one.at = Math.min(last, Math.max(0, one.at < 0 ? 0 : one.at + step));
  else return;
  event.preventDefault();
  const { curve, point } = one.picks[one.at] ?? one.picks[0];
  try { Plotly.Fx.hover(one.box, [{ curveNumber: curve, pointNumber: point }]); } catch { /* no label in 3-D */ }
  announce(unsafe(one.box.data[curve].hovertext[point]));
}

const redrawAll = () => charts.forEach(one => one.redraw());
addEventListener("beforeprint", () => charts.forEach(one => { if (!one.drawn) draw(one); }));
