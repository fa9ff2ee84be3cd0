"""The one page: what it says equals the files, what was not run is said, and nothing that comes as data is more than text."""
import html
import itertools
import json
import re

import made_results
import numpy as np
import pytest
from PIL import Image

from snnseg import config, settings
from snnseg.errors import StoreAltered
from snnseg.report import overview, paper, style, table
from snnseg.report.page import accuracy, beside, course, frugal, glance, index, nets, plot, samples
from snnseg.report.page.plot import Panel, Point, Series
from snnseg.tracking import database, measurements

NETS = "spiking_deeplab", "spiking_fcn", "ann_deeplab", "ann_fcn"


def written(project, names):
    """The page of these experiments as text, and the rows of results.csv; no figure is drawn as a file."""
    results, report = project / "data" / "result", project / "data" / "report"
    rows, found = table.write(results, report, names), nets.read(results, names)
    return index.page(found, index.sections(found, rows, project / "data" / "tune"), rows), made_results.rows(report / "results.csv")


def cells(page: str, id: str) -> list[list[str]]:
    """The body of a table by its id."""
    body = re.search(rf'<table id="{id}".*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    return [[html.unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall("<tr>(.*?)</tr>", body, re.DOTALL)]


def keys(page: str, id: str) -> list[str]:
    return re.findall('data-key="([^"]+)"', re.search(rf'<table id="{id}".*?</thead>', page, re.DOTALL)[0])


@pytest.fixture
def made(project):
    for net in NETS:
        made_results.make(project, f"voc/{net}", parts="energy robustness curve steps")
    return project


def test_tables_are_results_csv(made):
    page, rows = written(made, [f"voc/{net}" for net in NETS])
    for id in ("results", "numbers"):
        assert cells(page, id) == [[row[key] for key in keys(page, id)] for row in rows]
    assert set(keys(page, "results") + keys(page, "numbers")) == set(rows[0]) - {"iou_per_class"}      # which has a table of its own
    classes = {row[0]: row[2:] for row in cells(page, "classes-voc")}
    for k, row in enumerate(rows):
        assert row["iou_per_class"] == ";".join(f"{c}={of[k]}" for c, of in classes.items())


def test_the_paper_is_quoted_to_the_letter(made):
    """Table 2, and a difference that carries what makes it no reproduction."""
    page, rows = written(made, [f"voc/{net}" for net in NETS])
    told = cells(page, "paper-table-2")
    assert [(row[0], row[1], row[5]) for row in told] == [("ANN-DeepLab", "34.7", "-"), ("ANN-FCN", "32.9", "-"), ("Spiking-DeepLab", "22.3", "20"), ("Spiking-FCN", "9.9", "20")]
    for row, net in zip(told, ("ann_deeplab", "ann_fcn", "spiking_deeplab", "spiking_fcn"), strict=True):
        ours = next(r["miou"] for r in rows if r["experiment"] == net)
        points, mark = row[3].split(" ", 1)
        assert row[2] == ours and mark == "other setting" and float(points.replace("\u2212", "-")) == pytest.approx(float(ours) - float(row[1]), abs=0.011)
        assert row[4].startswith("other setting: sample data, partial data, 3 138/450, 32 pixels, width 0.25, 6 epochs, cosine learning rate")
        assert ("T = 4" in row[4]) == ("direct coding" in row[4]) == net.startswith("spiking")
    assert [row[1:] for row in cells(page, "paper-table-5")] == [["3.7", "3.7", "+0.0"], ["0.9", "0.9", "+0.0"], ["4.6", "4.6", "+0.0"], ["0.9", "0.9", "+0.0"]]
    energy = {row[0]: row for row in cells(page, "paper-table-6")}
    proxy = {r["experiment"]: float(r["proxy_mj"]) for r in rows}
    assert energy["Spiking-FCN, VOC2012"][1] == "2.37\u00d7" and float(energy["Spiking-FCN, VOC2012"][2][:-1]) == pytest.approx(proxy["ann_fcn"] / proxy["spiking_fcn"], rel=0.01)
    assert {row[0]: row[1:3] for row in cells(page, "paper-figure-12")} == {
        "2": ["-", "22.00"], "4": ["-", "24.00"], "10": ["8.44", "not run"], "20": ["22.3", "not run"], "40": ["27.91", "not run"]}


def test_the_paper_s_setting_is_that_of_the_settings(project):
    """What paper.csv holds of section 5.1 is what `snnseg setting paper` sets, so a net trained with it carries no mark."""
    settings.switch(project / "params.yaml", "paper")
    for name in ("voc/spiking_fcn", "ddd17/ann_fcn", "mnist_cifar/spiking_deeplab"):
        numbers = config.load(project / "params.yaml", name)
        items = {"voc": (10_582, 1_449), "mnist_cifar": (48_000, 12_000), "ddd17": (15_646, 3_814)}[numbers.benchmark]
        about = made_results.about(numbers, ["a", "b"]) | {"partial": None, "train_samples": items[0], "test_samples": items[1]}
        metrics = {"timesteps": 20, "trained_timesteps": 20, "statistics": "running"}
        assert paper.deviations(about, metrics) == []
        assert paper.deviations(about | {"partial": "3/5"}, metrics) == ["partial data, 3/5"]
        assert paper.deviations(about, metrics | {"statistics": "batch"}) == ["batch statistics"]
    assert paper.SPIKING["voc", "spiking_deeplab"] == {10: 8.44, 20: 22.3, 40: 27.91} and paper.ANN["ddd17", "ann_fcn"] == 42.2
    assert len(paper.of("miou")) == 12 and len(paper.of("energy_ratio")) == 4


def test_what_was_not_run_is_said(project):
    """One net evaluated alone: everything else says `not run`, with the stage, and no cell is a zero."""
    made_results.make(project, "voc/ann_fcn", parts="")
    page, rows = written(project, ["voc/ann_fcn", "voc/spiking_fcn"])
    assert {rows[1][key] for key in rows[1]} == {"voc", "spiking_fcn", "not run"} and rows[0]["exact_mj"] == "not run"
    assert [row[2:] for row in cells(page, "paper-table-2")][3] == ["not run", "not run", "not run", "20", "not run"] and cells(page, "glance-voc")[0][2:] == ["not run", "not run"]
    for command in ("energy", "robustness", "train", "timesteps", "convert", "activations"):
        assert f"<code>dvc repro {command}</code>" in page
    assert "<code>snnseg tune BENCHMARK/EXPERIMENT</code>" in page and "1 of 2 experiments were not run yet" in page


def test_without_any_result_the_page_says_which_stage_makes_which_part(project):
    page, rows = written(project, config.reproduced(project / "params.yaml"))
    assert len(rows) == 12 and {row["miou"] for row in rows} == {"not run"}
    assert {"evaluate", "robustness", "energy", "timesteps", "convert", "activations", "train"} <= set(re.findall("<code>dvc repro ?(\\w*)</code>", page))
    assert "12 of 12 experiments were not run yet" in page and not (project / "data" / "report" / "pictures.png").exists()


def test_a_sweep_is_shown(project):
    made_results.make(project, "mnist_cifar/spiking_deeplab")
    folder = made_results.sweep(project)
    page, _ = written(project, ["mnist_cifar/spiking_deeplab"])
    assert cells(page, f"sweep-{folder.name}")[0] == ["2", "0.7", "52.00", "-", "3", "finished"] and f'href="../tune/{folder.name}/sweep.html"' in page
    (folder / "best.json").write_text("{")
    with pytest.raises(StoreAltered, match="verdict cannot be read"):
        written(project, ["mnist_cifar/spiking_deeplab"])


def test_class_names_are_text(project):
    """A class named as a script, an attribute's end and an entity is shown, never obeyed."""
    wicked = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a&amp;b"]
    made_results.make(project, "voc/ann_fcn", wicked)
    page, _ = written(project, ["voc/ann_fcn"])
    assert [row[0] for row in cells(page, "classes-voc")] == wicked
    assert page.count("<script") == 1 and "<img src=x" not in page and "onerror=alert(2)&gt;" in page
    assert "script-src 'sha256-" in html.unescape(page) and "default-src 'none'" in html.unescape(page)


def test_the_same_results_give_the_same_bytes(made):
    names = ["voc/spiking_fcn", "voc/ann_fcn"]
    report = made / "data" / "report"
    place = made / "data" / "result", report, names
    overview.write(*place)
    assert {"results.csv", "robustness.csv", "spikes.csv", "conversion.csv", "timesteps.csv"} <= {p.name for p in report.iterdir()}
    first = (report / "index.html").read_bytes()
    drawn = {p.name: p.read_bytes() for p in (report / "figures").iterdir()}
    assert set(drawn) == {f"{name}.{kind}" for name in ("accuracy", "robustness", "trade", "energy", "spikes", "timesteps", "conversion", "membrane", "course") for kind in ("png", "svg")}
    (report / "figures" / "former.png").write_bytes(b"of an earlier report")
    overview.write(*place)
    assert (report / "index.html").read_bytes() == first and {p.name: p.read_bytes() for p in (report / "figures").iterdir()} == drawn
    with Image.open(report / "figures" / "accuracy.png") as picture:
        assert picture.width > 200


def test_a_twin_of_few_bits_is_seen_where_both_numbers_are_known(made):
    """Bits that were scored and counted, the fewest first; none of a spiking net, nor of a twin whose energy was counted before there were any."""
    found = {net.experiment: net for net in nets.read(made / "data" / "result", [f"voc/{net}" for net in NETS])}
    twin = found["ann_fcn"]
    counted = {q["bits"]: q["exact_mj"] for q in twin.energy["quantised"]}
    assert frugal.few_bits(twin) == [Point(counted[2], 30.0), Point(counted[3], 38.0)] and frugal.few_bits(found["spiking_fcn"]) == []
    file = made / "data" / "result" / "voc" / "ann_fcn" / "energy.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "quantised"}))
    again, = nets.read(made / "data" / "result", ["voc/ann_fcn"])
    assert frugal.few_bits(again) == []


def test_a_file_that_is_no_json_is_named(made):
    (made / "data" / "result" / "voc" / "ann_fcn" / "robustness.json").write_text("[1")
    with pytest.raises(StoreAltered, match="robustness.json: not the JSON"):
        written(made, ["voc/ann_fcn"])


def test_the_head_line_by_hand(project):
    for net, miou, exact, drop in (("spiking_fcn", 60.0, 0.02, 12.4), ("ann_fcn", 70.0, 0.05, 25.6)):
        folder = made_results.make(project, f"mnist_cifar/{net}")
        for file, told in (("metrics.json", {"miou": miou}), ("energy.json", {"energy_mj": {"proxy": 1.0, "exact": exact, "with_memory": 1.0}})):
            made_results.save(folder / file, json.loads((folder / file).read_text()) | told)
        noise = {"gaussian": [{"level": level, "miou": 1.0, "spread": 0.1, "draws": 3, "drop": drop} for level in (0, 10, 30, 90)]}
        made_results.save(folder / "robustness.json", {"miou": miou, "noise": noise})
    told = glance.headlines(nets.read(project / "data" / "result", ["mnist_cifar/ann_fcn", "mnist_cifar/spiking_fcn"]))
    assert told == ["On MNIST-CIFAR10, Spiking-FCN reaches 60.0 % mIoU (70.0 for its ANN twin), loses 12 % of it to Gaussian noise of 30 of 255 (twin 26 %) "
                    "and spends 0.02 mJ a picture, 2.5 times less than the twin."]


def test_thousands_of_rows_are_cut_and_said(project):
    """The paper's four stay, then the most accurate, in their order."""
    rows = [{"benchmark": "voc", "experiment": f"net{k}", "miou": f"{k % 977:.2f}"} for k in range(3000)] + [{"benchmark": "voc", "experiment": "ann_fcn", "miou": "1.00"}]
    some = accuracy._some(rows)
    assert len(some) == accuracy.ROWS and some[-1]["experiment"] == "ann_fcn" and [r for r in rows if r in some] == some
    assert min(float(r["miou"]) for r in some[:-1]) >= max(float(r["miou"]) for r in rows if r not in some)
    curve = [Point(k, k) for k in range(10_000)]
    assert len(course.thinned(curve)) == course.POINTS and course.thinned(curve)[::course.POINTS - 1] == [curve[0], curve[-1]]


def test_axes_by_hand():
    panel = Panel("p", "x", "y", [Series("ann_fcn", [Point(0, 10, 8, 12), Point(4, 30)])])
    up, across = plot.y_axis(panel), plot.x_axis(panel)
    assert up.place(0) == 0 and 0.9 < up.place(30) < 1 and [label for _, label in up.ticks][:2] == ["0", "10"]
    assert across.place(2) == pytest.approx(0.5)
    logs = plot.y_axis(Panel("p", "x", "y", [Series("ann_fcn", [Point(0, 0.02), Point(1, 2.0)])], log_y=True))
    assert logs.place(0.2) == pytest.approx(0.5) and all(0 <= logs.place(t) <= 1 for t, _ in logs.ticks) and len(logs.ticks) >= 2
    assert plot.short(0.0333333) == "0.03333" and plot.short(0) == "0"


def test_alt_texts_by_hand():
    mask = np.array([[0, 0, 0, 1], [255, 255, 255, 255]], np.uint8)
    assert samples.named(mask, ["background", "dog"]) == "background 75 %, dog 25 %" and samples.named(mask[1:], ["a"]) == "void"
    assert samples.right(mask, np.zeros_like(mask)) == 75


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
    return sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(a: str, b: str) -> float:
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_enough_in_light_and_dark():
    """WCAG 2.2 AA: text 4.5, marks 3."""
    css = (index.HERE / "page.css").read_text()
    for which, block in zip(("colour", "on_dark"), re.findall(r":root\{(.*?)\}", css), strict=True):
        c = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", block))
        for text, ground in (("ink", "ground"), ("soft", "ground"), ("link", "ground"), ("absent", "ground"), ("ink", "raised"), ("absent", "raised"), ("ink", "warn")):
            assert contrast(c[text], c[ground]) >= 4.5, (which, text, ground)
        for look in style.LOOKS:
            assert contrast(getattr(look, which), c["ground"]) >= 3, (which, look)


# colours as seen without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1), on linear RGB
BLIND = {"protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
         "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
         "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]}


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    rgb = np.array([int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.clip(seen @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["all cones", *BLIND])
@pytest.mark.parametrize("which", ["colour", "on_dark"])
def test_the_paper_s_nets_are_told_apart_without_colour_vision(kind, which):
    """Their colours differ by more than 10 in CIELAB, their marks in form."""
    seen = np.array(BLIND.get(kind, np.eye(3)))
    for a, b in itertools.combinations(style.KNOWN.values(), 2):
        assert np.linalg.norm(lab(getattr(a, which), seen) - lab(getattr(b, which), seen)) > 10, (kind, a, b)
    assert len({look.mark for look in style.LOOKS}) == len(style.LOOKS) and len({look.place for look in style.LOOKS}) == len(style.LOOKS)


def test_a_reproduction_is_one_only_in_the_paper_s_setting(made):
    net = nets.Net("voc/ann_fcn", made / "data" / "result" / "voc" / "ann_fcn")
    assert beside.setting(net).startswith("other setting: ")


def test_mlflow_gets_the_page_and_its_figures(project):
    """One run, however often a report is made, apart from the trainings'."""
    import mlflow

    numbers = config.load(project / "params.yaml")
    made_results.make(project, "voc/ann_fcn", parts="")
    overview.write(project / "data" / "result", numbers.report, ["voc/ann_fcn"])
    measurements.log_report(numbers)
    measurements.log_report(numbers)
    client = mlflow.MlflowClient(database.store_uri(project))
    run, = client.search_runs([client.get_experiment_by_name("snnseg-report").experiment_id])
    assert {"index.html", "results.csv", "figures"} == {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"figures/accuracy.png", "figures/accuracy.svg"} <= {a.path for a in client.list_artifacts(run.info.run_id, "figures")}
    assert run.info.status == "FINISHED" and client.get_experiment_by_name("snnseg") is None
