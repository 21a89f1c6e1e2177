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
    state.textContent = fault ? `live; not renewed: ${fault}` : "live";
    if (!fault && version !== data.live && !dialog.open && !typing()) {
      memory.set("scroll", String(scrollY));
      location.reload();
      return;
    }
  } catch {
    state.textContent = "the server has ended; this is its last state";
  }
  setTimeout(follow, POLL_MS);
}

const typing = () => document.activeElement?.id === "filter";

head();
theme();
sections();
restoreTable();
refresh();
if (data.live) {
  history.scrollRestoration = "manual";
  scrollTo(0, Number(memory.get("scroll") ?? 0));
  setTimeout(follow, POLL_MS);
}
document.documentElement.dataset.ready = "yes";
