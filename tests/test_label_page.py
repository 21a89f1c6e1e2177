"""The page of thumbnails in a real browser: labelled by keyboard and by mouse, and what it saves."""

import csv
import shutil
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from image_folders import grey
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from orchestrator.label_page import page
from trainables.data.labels import read_labels

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE_S = 20.0

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

FILES = ['a "quoted", name.png', "b é 写.png", "c.png", "d.png"]


class Browser:
    """A page of four images and what a person can do with it."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, classes: list[str]) -> None:
        file = self.folder / "page.html"
        file.write_text(page("four", "four.csv", self.folder, FILES, classes))
        self.driver.get(file.as_uri())

    def type(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @property
    def said(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "output").text

    @property
    def cards(self) -> list[WebElement]:
        return self.driver.find_elements(By.TAG_NAME, "fieldset")

    def chosen(self) -> dict[str, str]:
        found = self.driver.find_elements(By.CSS_SELECTOR, "input:checked")
        return {
            str(radio.find_element(By.XPATH, "ancestor::fieldset").get_attribute("data-file")): str(
                radio.get_attribute("value")
            )
            for radio in found
        }

    def current(self) -> str | None:
        """The file whose card has the focus; None where it is not on a card."""
        here = self.driver.switch_to.active_element.find_elements(By.XPATH, "ancestor::fieldset")
        return here[0].get_attribute("data-file") if here else None

    def saved(self) -> Path:
        """The file that the button gave."""
        file = self.folder / "four.csv"
        end = time.monotonic() + PATIENCE_S
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        return file


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Generator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    found = webdriver.Chrome(options, Service(DRIVER, log_output=str(tmp_path_factory.mktemp("driver") / "log")))
    try:
        yield found
    finally:
        found.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, tmp_path: Path) -> Browser:
    for number, name in enumerate(FILES):
        grey(number).save(tmp_path / name)
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    return Browser(driver, tmp_path)


def test_a_page_is_labelled_without_a_mouse(browser: Browser) -> None:
    browser.open(["0", "1", "2"])
    assert browser.current() == FILES[0]
    browser.type("2", "0", "1")
    assert browser.chosen() == {FILES[0]: "2", FILES[1]: "0", FILES[2]: "1"}
    browser.type(Keys.BACKSPACE)
    assert (browser.current(), browser.said) == (FILES[2], "2 of 4 labelled")
    browser.type("2", "0")
    assert (browser.current(), browser.said) == (None, "4 of 4 labelled")
    browser.type(Keys.ENTER)
    assert browser.said == "4 of 4 labelled, saved as four.csv"
    found = read_labels(browser.saved(), FILES, ["0", "1", "2"])
    assert found.faults == []
    assert {file: row.label for file, row in found.rows.items()} == dict(zip(FILES, "2020", strict=True))


def test_what_is_left_open_is_saved_as_open(browser: Browser) -> None:
    browser.open(['cat, "big"', "dog"])
    browser.cards[2].find_elements(By.TAG_NAME, "input")[0].click()
    browser.type(Keys.TAB, "2")
    assert browser.chosen() == {FILES[2]: 'cat, "big"', FILES[3]: "dog"}
    assert browser.current() is None
    browser.driver.find_element(By.TAG_NAME, "button").click()
    assert browser.said == "2 of 4 labelled, saved as four.csv"
    rows = list(csv.reader(browser.saved().read_text().splitlines()))
    assert rows == [["file", "label"], [FILES[0], ""], [FILES[1], ""], [FILES[2], 'cat, "big"'], [FILES[3], "dog"]]


def test_letters_need_no_shift_unless_two_classes_differ_by_it(browser: Browser) -> None:
    browser.open(["A", "b", "x", "X"])
    browser.type("a", "B", "X")
    assert list(browser.chosen().values()) == ["A", "b", "X"]


@pytest.mark.parametrize("width", [320, 1280])
def test_the_image_in_turn_is_in_sight(browser: Browser, width: int) -> None:
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.open([f"a class with a longer name, number {number}" for number in range(3)])
    look = (
        "const card = document.activeElement.closest('fieldset').getBoundingClientRect();"
        "const bar = document.querySelector('nav').getBoundingClientRect();"
        "return [bar.bottom, card.top, card.bottom, innerHeight, document.documentElement.scrollWidth, innerWidth]"
    )
    for key in ["1"] * 3 + [Keys.BACKSPACE] * 3:
        browser.type(key)
        bar, top, bottom, height, wide, inner = browser.driver.execute_script(look)
        assert bar <= top < bottom <= height
        assert wide <= inner
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
