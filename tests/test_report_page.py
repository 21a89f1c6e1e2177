"""The report in a real browser: what a person clicks, types and reads, and what a hostile study cannot do."""

import csv
import shutil
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import report_tables as made
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from orchestrator.cli import main
from orchestrator.report.serve import LiveReport, Server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader")


class Browser:
    """A report and what a person can do with it."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.ready()

    def ready(self) -> None:
        self.until(lambda: self.run("return document.documentElement.dataset.ready") == "yes", "the page is ready")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, f"not within {PATIENCE_S} s: {what}"
            time.sleep(0.05)

    def chart(self, selector: str) -> WebElement:
        """A chart, once it is in view and drawn."""
        box = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", box)
        self.until(lambda: box.get_attribute("data-drawn") == "yes", f"{selector} is drawn")
        return box

    def column(self, name: str) -> list[str]:
        """The texts of a column of the table of trials."""
        names = [one.get_attribute("data-sort") for one in self.all("#rows th button")]
        return [one.text for one in self.all(f"#rows tbody td:nth-child({names.index(name) + 1})")]

    def sort(self, name: str) -> None:
        self.run("arguments[0].click()", self.one(f'#rows [data-sort="{name}"]'))

    def filter(self, text: str) -> None:
        box = self.one("#filter")
        box.clear()
        box.send_keys(text)

    def shown(self) -> str:
        """The text of the trial that is open; empty if none is."""
        dialog = self.one("#trial")
        return dialog.text if dialog.get_attribute("open") is not None else ""

    def close(self) -> None:
        self.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        self.until(lambda: not self.shown(), "the trial is closed")

    def faults(self) -> list[str]:
        """What the console complained of since it was asked last."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]  # pyright: ignore[reportUnknownMemberType]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose name, question, values and errors would like to run."""
    rows = [
        row | {"study": f"{made.FORMULA}{made.SPITE}", "hosts": f"{made.FORMULA},{made.SPITE}"} for row in made.rows()
    ]
    return made.bounded(made.write(tmp_path_factory.mktemp("page") / "results" / "made_up", rows))


@pytest.fixture(scope="module")
def report(study: Path) -> str:
    out = study.parent / "report.html"
    assert main(["report", str(study), "--out", str(out)]) == 0
    return out.as_uri()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})  # pyright: ignore[reportUnknownMemberType]
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as chrome:
        yield Browser(chrome, downloads)


@pytest.fixture
def browser(driver: Browser, report: str) -> Generator[Browser]:
    driver.open(report)
    yield driver
    assert driver.faults() == []
    assert driver.run("return window.spite ?? null") is None


def test_every_chart_is_drawn_and_names_of_a_study_are_text(browser: Browser) -> None:
    assert made.SPITE in browser.one("h1").text
    assert browser.one("#question").text == f"What does {made.SPITE} cost?"
    assert made.SPITE in browser.one("#study pre").text
    assert made.FORMULA in browser.one("#failures table").text
    assert made.TOLD_OF_BOUND in [one.text for one in browser.all("#front p.note")]
    assert not browser.all("main img, main script, header img")
    drawn = len(browser.all("[data-drawn]"))
    boxes = browser.all(".chart")
    assert "_latency.parquet is not in" in browser.one("#latency .why").text
    assert 0 < drawn < len(boxes)  # those out of view wait
    for box in boxes:
        browser.run("arguments[0].scrollIntoView({block: 'center'})", box)
        browser.until(lambda box=box: box.get_attribute("data-drawn") == "yes", "drawn")
    assert browser.all("#solid canvas")
    assert not browser.all(".chart .why")


def test_hostile_values_on_an_axis_are_text_in_charts(driver: Browser, tmp_path: Path) -> None:
    def name(row: dict[str, Any]) -> str:
        return made.SPITE if (row["compress.pfr"] == 0.4) != (row["model.width"] == 16) else made.FORMULA

    rows = [row | {"data.name": name(row)} for row in made.rows()]
    folder = made.write(tmp_path / "made_up", rows, beside=False)
    assert main(["report", str(folder), "--max", "accuracy", "--max", "compression"]) == 0
    driver.open((folder / "_report" / "report.html").as_uri())
    for box in driver.all(".chart"):
        driver.run("arguments[0].scrollIntoView({block: 'center'})", box)
        driver.until(lambda box=box: box.get_attribute("data-drawn") == "yes", "drawn")
    assert "<script>" in driver.one("#effects").text
    with_name = next(i for i, one in enumerate(driver.all("#heat label:first-child option")) if "data.name" in one.text)
    choose = "arguments[0].selectedIndex = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
    driver.run(choose, driver.one("#heat select"), with_name)
    driver.until(lambda: "<script>" in driver.one("#heat .chart").text, "the other axes are drawn")
    assert "<script>" in driver.one("#parallel").text
    assert not driver.all("main img, main script")
    assert driver.faults() == []
    assert driver.run("return window.spite ?? null") is None


def test_a_click_on_a_point_shows_its_trials_and_the_command(browser: Browser, study: Path) -> None:
    browser.chart("#front .chart")
    point = browser.all("#front .chart .scatterlayer .trace:last-child path.point")[0]
    ActionChains(browser.driver).move_to_element(point).click().perform()
    browser.until(lambda: bool(browser.shown()), "the trial is open")
    text = browser.shown()
    assert "on the front" in text
    first, *others = (one.text.rpartition(" ")[2] for one in browser.all("#trial option"))
    assert others
    assert f"orchestrator export {first} --format packed --results {study.parent}" in text
    assert "some machine" in text
    browser.run(
        "arguments[0].selectedIndex = 1; arguments[0].dispatchEvent(new Event('change'))", browser.one("#trial select")
    )
    assert f"orchestrator export {others[0]} " in browser.shown()
    browser.close()


def test_a_baseline_far_away_leaves_room_for_the_settings(browser: Browser) -> None:
    """Settings compress 16 times and more, the dense network once: it stands at the edge unless all is asked for."""
    box = browser.chart("#front .chart")
    names = "return arguments[0].data.map(one => one.name)"
    least = "const range = arguments[0].layout.xaxis.range; return range[0]"
    assert "baselines farther left" in browser.run(names, box)
    assert browser.run(least, box) > 10
    text = browser.run("return arguments[0].data.find(one => one.name.includes('farther')).hovertext[0]", box)
    assert "compression: 1" in text
    browser.run("arguments[0].click()", browser.one("#whole"))
    browser.until(lambda: "baselines" in browser.run(names, box), "the chart is drawn anew")
    assert browser.run(least, box) < 1


def test_a_point_of_one_seed_is_hollow_beside_others_of_several(browser: Browser) -> None:
    box = browser.chart("#front .chart")
    symbols = browser.run(
        "return arguments[0].data.flatMap(one => one.marker.symbol.map((s, i) => [s, one.hovertext[i]]))", box
    )
    hollow = [text for symbol, text in symbols if symbol in ("circle-open", "diamond-open")]
    assert len(hollow) == 1  # the other seed of this setting failed
    assert "pfr 0.4, width 16" in hollow[0]
    assert "(1 seed)" in hollow[0]
    assert "A hollow point stands on a single seed." in browser.one("#front p.note").text


def test_an_axis_that_was_drawn_is_shown_in_bins_and_filters_by_them(driver: Browser, tmp_path: Path) -> None:
    rows = [made.cell(round(0.001 * 1.7**i, 6), 8, 0) | {"trial_id": f"t{i}"} for i in range(12)]
    folder = made.write(tmp_path / "made_up", rows)
    study = (folder / "_study.yaml").read_text().replace("[0, 0.2, 0.4]\n", "{loguniform: [0.001, 0.4]}\n")
    (folder / "_study.yaml").write_text(study.replace("[8, 16]", "[8, 12]") + "search: {name: random, trials: 12}\n")
    assert main(["report", str(folder)]) == 0
    driver.open((folder / "_report" / "report.html").as_uri())
    box = driver.chart("#effects .chart")
    assert driver.run("return arguments[0].layout.xaxis.type", box) == "log"
    driver.run("arguments[0].focus()", box)
    box.send_keys(Keys.HOME)
    box.send_keys(Keys.ENTER)
    driver.until(lambda: driver.one("#filter").get_attribute("value") != "", "the table is filtered")
    low, high = 0.001, float(str(driver.one("#filter").get_attribute("value")).rpartition("<")[2])
    inside = sum(low <= float(row["compress.pfr"]) < high for row in rows)
    assert 0 < inside < len(rows)
    assert driver.one("#found").text == f"{inside} row{'' if inside == 1 else 's'}"
    assert driver.faults() == []


@pytest.mark.parametrize("table", ["search_grid", "al_budget"])
def test_numbers_at_logarithmic_axes_are_those_of_the_data(driver: Browser, tmp_path: Path, table: str) -> None:
    out = tmp_path / "page.html"
    assert main(["report", f"results/reference/{table}.parquet", "--out", str(out)]) == 0
    driver.open(out.as_uri())
    of_axis = """
        const box = arguments[0], name = arguments[1], one = box._fullLayout[`${name}axis`];
        const texts = [...box.querySelectorAll(`.${name}tick text`)].map(text => text.textContent);
        return {type: one.type, range: one.range, drawn: texts.map(text => text.replace("\u2212", "-"))};
    """
    seen = 0
    for number in range(len(driver.all("#front .chart"))):
        box = driver.chart(f"#front .chart:nth-child({number + 1})")
        for name in "xy":
            found = driver.run(of_axis, box, name)
            if found["type"] == "log":
                low, high = (10**end for end in found["range"])
                told = [float(text.replace("K", "e3").replace("M", "e6")) for text in found["drawn"]]
                assert len(told) >= 2
                assert told == sorted(set(told))
                assert all(low * 0.999 <= value <= high * 1.001 for value in told)
                seen += 1
    assert seen
    solid = driver.chart("#solid .chart") if driver.all("#solid .chart") else None
    assert solid is None or driver.run("return arguments[0].layout.scene.aspectmode", solid) == "cube"
    assert driver.faults() == []


def test_the_keyboard_walks_through_a_chart_and_opens_a_point(browser: Browser) -> None:
    box = browser.chart("#front .chart")
    box.send_keys(Keys.HOME)
    browser.until(lambda: "baseline dense" in str(browser.run("return said.textContent")), "the first point is told")
    box.send_keys(Keys.ARROW_RIGHT)
    told = str(browser.run("return said.textContent"))
    assert "pfr 0, width 8" in told or "pfr 0, width 16" in told
    assert "accuracy: " in told
    assert browser.all("#front .chart .hovertext")
    box.send_keys(Keys.ENTER)
    browser.until(lambda: "pfr 0, width" in browser.shown(), "the trial is open")
    assert "orchestrator export c0" in browser.shown()
    browser.close()
    assert browser.driver.switch_to.active_element == box


def test_all_can_be_reached_with_the_tab_key(browser: Browser) -> None:
    reached: set[str] = set()
    for _ in range(80):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(
            str(
                browser.run(
                    "const a = document.activeElement; return a.id || a.dataset.sort || a.className || a.textContent"
                )
            )
        )
    assert {"theme", "filter", "save", "accuracy", "skip", "Trials"} <= reached
    assert any(name.startswith("chart") for name in reached)


def test_a_row_shows_its_trial_and_a_failed_one_its_error(browser: Browser) -> None:
    ids = browser.column("trial_id")
    assert len(ids) == 13
    browser.run("arguments[0].click()", browser.all("#rows tbody tr")[ids.index("c2081")])
    assert "orchestrator export c2081 " in browser.shown()
    assert "stage_keys.train" in browser.shown()
    browser.close()
    row = browser.all("#rows tbody tr")[ids.index("c4161")].find_element(By.TAG_NAME, "button")
    browser.run("arguments[0].focus()", row)
    row.send_keys(Keys.ENTER)
    text = browser.shown()
    assert made.SPITE in text
    assert "orchestrator export" not in text
    browser.close()


def test_the_table_sorts_missing_last(browser: Browser) -> None:
    browser.sort("accuracy")
    falling = browser.column("accuracy")
    assert falling[-1] == "-"
    values = [float(text.removesuffix(" %")) for text in falling[:-1]]
    assert values == sorted(values, reverse=True)
    browser.sort("accuracy")
    assert browser.column("accuracy")[:-1] == falling[-2::-1]
    assert browser.column("accuracy")[-1] == "-"
    assert browser.one('#rows th[aria-sort="ascending"]').text.startswith("accuracy")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("model.width=16", 6),
        ("model.width=16 seed=1 status=complete", 2),
        ("accuracy>0.855", 3),
        ("status!=complete", 1),
        ("baseline=dense", 1),
        ("baseline=none", 12),
        ("c208", 2),
        ("nothing like it", 0),
    ],
)
def test_the_table_filters_by_words_and_comparisons(browser: Browser, text: str, kept: int) -> None:
    browser.filter(text)
    assert browser.one("#found").text == f"{kept} row{'' if kept == 1 else 's'}"
    assert len(browser.column("trial_id")) == kept


def test_a_filter_by_a_column_that_is_not_there_says_so(browser: Browser) -> None:
    browser.filter("acuracy>0.5")
    assert browser.one("#found").text == "0 rows; no column acuracy: the names are under Columns"


def test_the_saved_csv_holds_the_rows_shown_and_begins_no_formula(browser: Browser) -> None:
    browser.filter("status=failed")
    browser.run("arguments[0].click()", browser.one("#save"))
    browser.until(lambda: any(browser.downloads.glob("*.csv")), "the file is saved")
    with next(browser.downloads.glob("*.csv")).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["trial_id"] == "c4161"
    assert row["study"] == f"'{made.FORMULA}{made.SPITE}"
    assert row["hosts"].startswith("'=")
    assert row["error"] == f"{made.SPITE} {made.FORMULA}"
    assert row["accuracy"] == ""
    assert float(row["compress.pfr"]) == 0.4


def test_the_theme_follows_the_system_and_the_button(browser: Browser, report: str) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = "return document.querySelector('#front .chart .xtick text').style.fill"
    browser.chart("#front .chart")
    light, light_ink = browser.run(paper), browser.run(ink)
    browser.run("arguments[0].click()", browser.one("#theme"))
    assert browser.run(paper) != light
    browser.until(lambda: browser.run(ink) != light_ink, "the chart is drawn anew")
    browser.open(report)
    assert browser.one("#theme").text == "Light"  # remembered
    browser.run("sessionStorage.clear()")
    for scheme, name in (("dark", "Light"), ("light", "Dark")):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)  # pyright: ignore[reportUnknownMemberType]
        browser.open(report)
        assert browser.one("#theme").text == name
        browser.run("sessionStorage.clear()")


@pytest.mark.parametrize("width", [320, 768])
def test_a_narrow_screen_scrolls_no_page_sideways(browser: Browser, report: str, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # pyright: ignore[reportUnknownMemberType]
    try:
        browser.open(report)
        for box in browser.all(".chart")[:4]:
            browser.run("arguments[0].scrollIntoView({block: 'center'})", box)
            browser.until(lambda box=box: box.get_attribute("data-drawn") == "yes", "drawn")
        assert browser.run("const page = document.documentElement; return page.scrollWidth - page.clientWidth") == 0
        browser.run("arguments[0].click()", browser.one("#rows tbody tr"))
        assert browser.run("return trial.getBoundingClientRect().right") <= width
        browser.close()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})  # pyright: ignore[reportUnknownMemberType]


def test_the_policy_stops_what_gets_into_the_page_anyway(driver: Browser, report: str) -> None:
    driver.open(report)
    driver.run("document.body.insertAdjacentHTML('beforeend', arguments[0])", made.SPITE)
    driver.run(
        "const s = document.createElement('script'); s.textContent = 'window.spite = 3'; document.body.append(s)"
    )
    driver.until(lambda: any("Content Security Policy" in fault for fault in driver.faults()), "it is stopped")
    assert driver.run("return window.spite ?? null") is None
    assert driver.run("return fetch('https://example.org').then(() => 'sent', () => 'stopped')") == "stopped"
    driver.faults()


def test_the_live_page_takes_newer_tables_and_keeps_place_theme_and_filter(driver: Browser, tmp_path: Path) -> None:
    folder = made.write(tmp_path / "results" / "made_up", made.rows()[:4])
    with Server(LiveReport(str(folder), {}), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            driver.open(server.address)
            driver.run("arguments[0].click()", driver.one("#theme"))
            theme = driver.one("#theme").text
            driver.filter("role=cell")
            assert driver.one("#found").text == "4 rows"
            driver.run("scrollTo(0, 900)")
            made.write(folder, made.rows())
            driver.until(
                lambda: driver.run("return document.getElementById('found')?.textContent") == "12 rows", "renewed"
            )
            driver.ready()
            assert driver.one("#theme").text == theme
            assert driver.run("return scrollY") == 900
            assert driver.run("return document.activeElement.id") == "filter"
        finally:
            server.shutdown()
            thread.join()
    driver.until(lambda: "ended" in driver.one("#live").text, "the page says that the server ended")
