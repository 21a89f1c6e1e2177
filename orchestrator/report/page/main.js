// The page: its head, its sections in order, the theme, and a server's newer tables.

const SECTIONS = [
  ["front", "Front", frontSection],
  ["solid", "Front in 3-D", solidSection],
  ["parallel", "Parallel coordinates", parallelSection],
  ["effects", "Effect of each axis", effectSection],
  ["heat", "Heat map of two axes", heatSection],
  ["labelling", "Learning curves", labellingSection],
  ["training", "Training curves", trainingSection],
  ["seconds", "Where the time went", secondsSection],
  ["latency", "Latency by runtime and batch", latencySection],
  ["failures", "Failed trials", failureSection],
  ["table", "Trials", tableSection],
  ["study", "The study", studySection],
  ["provenance", "Provenance", provenanceSection],
  ["columns", "How each number was measured", columnSection],
];

function head() {
  const { counts, study } = data;
  document.title = `${study.name}: sweep report`;
  document.getElementById("title").textContent = study.name;
  document.getElementById("question").textContent = study.question;
  const bad = ["failed", "infeasible", "stopped", "unfinished"].filter(name => counts[name])
    .map(name => `, ${counts[name].toLocaleString("en")} ${name}`).join("");
  document.getElementById("counts").textContent = `${plural(counts.cells, "cell")} and ${plural(counts.baselines, "baseline")}, ` +
    `${plural(counts.seeds, "seed")}; ${counts.complete.toLocaleString("en")} complete${bad}. Tables of ${study.path}, ` +
    `read ${study.made} UTC.`;
}

function damaged() {
  const place = document.getElementById("damaged");
  place.append(...data.damaged.map(text => make("p", { class: "why bad" }, text)));
}

function sections() {
  const main = document.getElementById("content"), nav = document.getElementById("contents");
  for (const [id, title, build] of SECTIONS) {
    const section = make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title));
    main.append(section);
    nav.append(make("a", { href: `#${id}` }, title));
    build(section);
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme");
  button.textContent = name === "dark" ? "Light" : "Dark";
  button.title = `Switch to ${name === "dark" ? "light" : "dark"} colours`;
  button.setAttribute("aria-pressed", String(name === "dark"));
  redrawAll();
}

function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const ofSystem = () => (system.matches ? "dark" : "light");
  setTheme(memory.get("theme") ?? ofSystem());
  system.addEventListener("change", () => { if (!memory.get("theme")) setTheme(ofSystem()); });
  document.getElementById("theme").addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    memory.set("theme", next);
    setTheme(next);
  });
}

const POLL_MS = 2000;

/** Ask the server for the version of its tables; a newer one is loaded and the place on the page kept. */
async function follow() {
  const state = document.getElementById("live");
  state.hidden = false;
  try {
    const answer = await fetch("version", { cache: "no-store" });
    const { version, fault } = await answer.json();
    const newer = version !== data.live && dialog.open;
    state.textContent = fault ? `live; not renewed: ${fault}` : newer ? "live; newer once this trial is closed" : "live";
    if (!fault && version !== data.live && !dialog.open) {
      memory.set("scroll", String(scrollY));
      memory.set("focus", document.activeElement?.id ?? "");
      location.reload();
      return;
    }
  } catch {
    state.textContent = "the server has ended; this is its last state";
  }
  setTimeout(follow, POLL_MS);
}

/** The rows of the table, which are packed: what is drawn does not wait for them. */
async function fillTable() {
  data.rows = await unpacked(data.rows);
  for (let row = 0; row < data.rows.n; row++) rowOf.set(at(data.rows.columns.trial_id, row), row);
  restoreTable();
  refresh();
}

/** Back to where the page was before newer tables were loaded. */
function takePlace() {
  history.scrollRestoration = "manual";
  scrollTo(0, Number(memory.get("scroll") ?? 0));
  document.getElementById(memory.get("focus") || "title")?.focus({ preventScroll: true });
}

async function start() {
  head();
  damaged();
  theme();
  sections();
  await fillTable();
  if (data.live) {
    takePlace();
    setTimeout(follow, POLL_MS);
  }
  document.documentElement.dataset.ready = "yes";
}

start().catch(error => document.getElementById("content").prepend(make("p", { class: "why" },
  `The report cannot be shown whole: ${error.message}. A browser of 2023 or later is needed.`)));
