"""The page in a real browser: Debian's chromium, headless, driven by playwright. Skipped where one of the two is not there."""
import json
import os
import shutil

import made_results
import pytest
from conftest import ROOT

from snnseg import config
from snnseg.report import table
from snnseg.report.page import accuracy, index, nets

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]
WICKED = ["background", "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>']


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])      # which root has none of
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with everything on it, made up, one class named to do harm."""
    project = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", project)
    names = config.reproduced(project / "params.yaml")
    for name in names:
        made_results.make(project, name, WICKED if name.startswith("voc") else None, "energy robustness curve steps")
    made_results.sweep(project)
    return written(project, names)


def written(project, names):
    results, folder = project / "data" / "result", project / "data" / "report"
    rows, found = table.write(results, folder, names), nets.read(results, names)
    (folder / "index.html").write_text(index.page(found, index.sections(found, rows, project / "data" / "tune"), rows), encoding="utf-8")
    return folder


class Watched:
    """A page that keeps what went wrong and what was asked for."""

    def __init__(self, browser, folder, **how):
        self.errors, self.requests, self.dialogs = [], [], []
        self.page = browser.new_page(**how)
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.goto((folder / "index.html").as_uri())

    def local(self):
        """Nothing was asked for but the file itself and what is inside it."""
        return [url for url in self.requests if not url.startswith("data:")] == [self.page.url]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_whole(browser, report, width, scheme):
    """No error, no request, every picture there, no script of a class name, and nothing wider than the window."""
    seen = Watched(browser, report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = seen.page
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    pictures = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => [i.naturalWidth, i.alt.length], () => [0, 0])))")
    assert len(pictures) > 100 and all(wide > 0 and told > 0 for wide, told in pictures)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ("rgb(253, 253, 252)" if scheme == "light" else "rgb(20, 23, 26)")
    assert page.locator("#classes-voc tbody th").all_inner_texts() == WICKED
    assert seen.errors == [] and seen.dialogs == [] and seen.local()
    page.close()


def test_tables_in_the_browser_are_results_csv(browser, report):
    seen = Watched(browser, report)
    rows = made_results.rows(report / "results.csv")
    for id in ("results", "numbers"):
        keys = seen.page.eval_on_selector_all(f"#{id} thead th", "heads => heads.map(h => h.dataset.key)")
        cells = seen.page.eval_on_selector_all(f"#{id} tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.textContent.trim()))")
        assert cells == [[row[key] for key in keys] for row in rows]
    seen.page.close()


def test_a_reader_with_a_keyboard(browser, report):
    """The first tab leads to the skip link; a table is sorted, a net hidden, a film stepped through, by keys alone."""
    seen = Watched(browser, report, reduced_motion="reduce")
    page = seen.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    head = page.locator("#results thead button", has_text="mIoU").first
    head.focus()
    for order, best_first in (("descending", True), ("ascending", False)):
        page.keyboard.press("Enter")
        shown = [float(text) for text in page.locator("#results tbody td:nth-child(6)").all_inner_texts()]
        assert page.locator("#results th[aria-sort]").get_attribute("aria-sort") == order and shown == sorted(shown, reverse=best_first)
    button = page.locator("#figure-accuracy .legend button").first
    button.focus()
    page.keyboard.press("Space")
    net = button.get_attribute("data-net")
    assert button.get_attribute("aria-pressed") == "false" and not page.locator(f"#figure-accuracy .series[data-net={net}]").first.is_visible()
    film = page.locator(".film").first
    film.locator("input").focus()
    page.keyboard.press("Home")
    assert film.locator("output").inner_text() == "step 1 of 4, 25 % of the pixels right"
    page.locator("#figure-robustness .dot").nth(1).hover(force=True)
    told = page.locator("#hint").inner_text().split("\n\n")        # nets whose points lie on one another
    assert {t.splitlines()[0] for t in told} == {"Spiking-DeepLab", "Spiking-FCN", "ANN-DeepLab", "ANN-FCN"} and "10 (" in told[0]
    assert seen.errors == []
    page.close()


def test_a_film_plays_while_it_is_seen(browser, report):
    seen = Watched(browser, report)
    film = seen.page.locator(".film").first
    film.scroll_into_view_if_needed()
    film.locator("output", has_text="step 2").wait_for(timeout=5000)
    film.locator("button").click()
    assert film.locator("button").inner_text() == "Play" and seen.errors == []
    seen.page.close()


def test_nothing_stands_against_a_screen_reader(browser, project):
    """The rules of axe (WCAG 2.2 A and AA, and good practice) find nothing, in light and dark, wide and narrow."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for net in ("spiking_fcn", "ann_fcn"):
        made_results.make(project, f"voc/{net}", WICKED, "energy robustness curve steps")
    made_results.sweep(project)
    report = written(project, ["voc/spiking_fcn", "voc/ann_fcn", "voc/ann_deeplab"])
    for scheme, width in (("light", 1280), ("dark", 390)):
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
        page.goto((report / "index.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        found = axe.run(page)
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]] == []
        page.close()


def test_thousands_of_runs_open_at_once(browser, project):
    """2 000 experiments: less than 8 MB, less than 3 s to the last table."""
    first = made_results.make(project, "voc/spiking_fcn", parts="energy robustness curve steps")
    names = ["voc/spiking_fcn", *(f"voc/net{k}" for k in range(2000))]
    metrics = json.loads((first / "metrics.json").read_text())
    for k in range(2000):
        folder = first.parent / f"net{k}"
        folder.mkdir()
        made_results.save(folder / "metrics.json", metrics | {"experiment": folder.name, "miou": k / 20})
        for name in ("about.json", "pictures.npz", "energy.json", "robustness.json", "spikes.csv", "curve.csv", "timesteps.json", "activations.npz"):
            (folder / name).symlink_to(first / name)
    folder = written(project, names)
    assert (folder / "index.html").stat().st_size < 8e6
    seen = Watched(browser, folder)
    loaded = seen.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < loaded < 3000 and seen.page.locator("#results tbody tr").count() == accuracy.ROWS and "of 2001 rows" in seen.page.content()
    assert seen.errors == []
    seen.page.close()
