"""What a sweep answers: the best trial, as files, pictures, one page, MLflow runs, and in params.yaml."""
import csv
import io
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from snnseg import config, settings
from snnseg.errors import ClusterError, ConfigError, NotFinite, OutOfMemory
from snnseg.tracking import database, sweeps
from snnseg.training.report import Journal
from snnseg.tuning import ledger, page, pictures, space, sweep, tune, verdict
from snnseg.tuning.ledger import Trial

NAME = "mnist_cifar/spiking_deeplab"


def numbers(*sets: str, params: Path = ROOT / "params.yaml") -> config.Config:
    return config.load(params, NAME, sets)


def trials(count: int = 12) -> list[Trial]:
    """Finished ones, every third stopped, one not finite and one crashed with the highest mIoU on the way."""
    rng = random.Random(1)
    made = []
    for k in range(count):
        params = {"neuron.leak": rng.uniform(0.5, 1.0), "neuron.threshold": rng.uniform(0.5, 2.0), "encode.timesteps": rng.randint(1, 6)}
        miou = 50.0 + 5 * params["encode.timesteps"] + params["neuron.leak"]
        stopped = k % 3 == 2
        curve = [[1, miou - 5]] + ([] if stopped else [[2, miou - 2], [3, miou]])
        made.append(Trial(k, params, "stopped" if stopped else "finished", curve[-1][1], None if stopped else 0.1 * params["encode.timesteps"], len(curve), 9.0, curve))
    for k, state in ((count, "not finite"), (count + 1, "crashed")):
        made.append(Trial(k, dict(made[0].params), state, 99.9, None, 1, 2.0, [[1, 99.9]], f"{state}, <b>why</b>"))
    return made


def judged(c: config.Config, made: list[Trial], *overrides: str) -> verdict.Verdict:
    return verdict.find(c, space.read(c), made, overrides, Path("params.yaml"))


def test_the_best_is_finished_and_of_equals_the_one_that_spends_less():
    made = trials()
    found = verdict.best(made)
    assert found.state == "finished" and found.miou == max(t.miou for t in made if t.state == "finished") < 99
    made += [Trial(50, found.params, "finished", found.miou, 0.01), Trial(51, found.params, "finished", found.miou, 0.01), Trial(52, found.params, "stopped", 98.0)]
    assert verdict.best(made).number == 50


@pytest.mark.parametrize(("state", "kind", "code"), [("not finite", NotFinite, 7), ("out of memory", OutOfMemory, 8), ("crashed", ClusterError, 9), ("failed", ClusterError, 9)])
def test_where_none_is_finished_the_first_reason_is_told(state, kind, code):
    made = [Trial(0, {}, "stopped", 50.0), Trial(1, {}, state, None, why="the reason"), Trial(2, {}, state, None, why="another")]
    with pytest.raises(kind, match="none of 3 trials was finished; 2 are .*the reason") as caught:
        verdict.best(made)
    assert caught.value.exit_code == code


def test_the_command_gives_the_best_trial_s_numbers_exactly():
    c, made = numbers("model.width=0.5"), trials()
    found = judged(c, made, "model.width=0.5")
    words = found.command.split()
    assert words[:3] == ["snnseg", "train", NAME]
    again = numbers(*words[4::2])
    assert words[3::2] == ["--set"] * (len(words[3:]) // 2)
    assert (again.neuron.leak, again.encode.timesteps, again.model.width) == (found.best.params["neuron.leak"], found.best.params["encode.timesteps"], 0.5)


def test_the_files_tell_every_trial_and_the_best(tmp_path):
    c, made = numbers(), trials()
    found = judged(c, made)
    verdict.write(c, space.read(c), tmp_path, found)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert [r["trial"] for r in rows] == [str(t.number) for t in made] and {r["state"] for r in rows} == {"finished", "stopped", "not finite", "crashed"}
    assert float(rows[0]["neuron.leak"]) == made[0].params["neuron.leak"] and rows[2]["energy_mj"] == ""
    told = json.loads((tmp_path / "best.json").read_text())
    assert told["best"]["number"] == found.best.number and told["command"] == found.command and told["trials"]["finished"] == 8
    assert verdict.tested(tmp_path, found.best) is None and verdict.tested(tmp_path, made[2]) is None
    verdict.write(c, space.read(c), tmp_path, judged_with(found, 61.5))
    assert verdict.tested(tmp_path, found.best) == 61.5 and verdict.tested(tmp_path, made[2]) is None


def judged_with(found: verdict.Verdict, miou: float) -> verdict.Verdict:
    return replace(found, test_miou=miou)


def test_the_table_has_the_best_first_and_no_score_where_there_is_none():
    c, made = numbers(), trials()
    found = judged_with(judged(c, made), 61.5)
    head, *rows = verdict.table(space.read(c), found).splitlines()
    assert head.split() == ["trial", "leak", "threshold", "T", "mIoU", "mJ", "epochs", "s", "state"] and len(rows) == len(made)
    assert rows[0].split()[0] == str(found.best.number) and rows[0].endswith("(best)") and all(" - " in row for row in rows[-2:])
    told = verdict.lines(c, found)
    assert "61.50 on the test split" in told and "0.1 of the training split held out" in told and "importance" in told and found.command in told


def test_with_two_objectives_the_front_is_reported():
    c, made = numbers("tune.objectives=[miou, energy]"), trials()
    found = judged(c, made)
    energy, miou = ([getattr(t, name) for t in found.front] for name in ("energy_mj", "miou"))
    assert len(energy) > 1 and energy == sorted(energy) and miou == sorted(miou) and found.best in found.front
    assert verdict.lines(c, found).count("\nfront: ") == len(found.front)
    assert "(front)" in verdict.table(space.read(c), found)


def test_pictures_show_what_the_trials_can_show():
    c, made = numbers("tune.space.optim.lr={log: [0.001, 0.1]}", "tune.space.model.norm={choice: [bntt, tdbn, bn]}"), trials()
    for k, t in enumerate(made):
        t.params |= {"optim.lr": 0.002 * (k + 1), "model.norm": ["bntt", "tdbn", "bn"][k % 3]}
    for some, names in ((made, {"history", "parallel", "contour", "timesteps"}), (made[:1], {"history", "parallel", "contour", "timesteps"}), (made[-1:], {"history"})):
        drawn = pictures.draw(space.read(c), some, {}, 1)
        assert drawn.keys() == {f"{name}.png" for name in names}
        for png in drawn.values():
            with Image.open(io.BytesIO(png)) as picture:
                assert picture.format == "PNG" and min(picture.size) > 300 and len(np.unique(np.asarray(picture))) > 20


class Requests(HTMLParser):
    """What a browser would ask for while it opens a page, and the text outside of scripts."""

    def __init__(self):
        super().__init__()
        self.asked, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.asked += [(tag, name, value) for name, value in attrs if name in {"src", "href", "data", "srcset", "poster", "action", "background"}]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_asks_for_nothing_and_shows_names_as_they_are():
    from plotly.offline import get_plotlyjs

    c, made = numbers(), trials()
    text = page.page("a <script>alert(1)</script> title", "best & <b>worst</b>", space.read(c), made, {}, 1)
    reader = Requests()
    reader.feed(text.replace(get_plotlyjs(), ""))
    assert reader.asked == [] and text.count("<script>alert") == 0 and get_plotlyjs() in text
    assert not re.findall(r"https?:|//[a-z]+\.", text.replace(get_plotlyjs(), "")), "an address outside of plotly's own code"
    assert "<b>why" not in text and len(text.encode()) < 5_000_000
    assert text.count('id="figure-') == 4


def test_a_run_name_fits_and_tells_number_and_sweep():
    long = Trial(7, {"neuron.leak": 0.9133678983902664, "neuron.threshold": 0.9575, "encode.timesteps": 4, "model.norm": "bntt", "optim.weight_decay": 0.0001})
    assert tune.run_name(long, "7f3a") == "007-leak0.9134-threshold0.9575-T4-n-7f3a" and len(tune.run_name(long, "7f3a")) <= 40
    assert tune.run_name(Trial(12, {"encode.timesteps": 4}), "7f3a") == "012-T4-7f3a" and tune.run_name(long, "7f3a").isascii()


# MLflow


@pytest.fixture
def swept(tiny):
    """A tiny sweep's place with four settled trials, as `tune` tells of them."""
    c = tiny("spiking_deeplab", "track.mlflow=true")
    about = {"uid": "sweep-1", "fingerprint": "7f3a99", "identity": sweep.identity(c, list(c.tune.space), "store", "code"), "space": c.model_dump()["tune"]["space"]}
    at = sweep.Place(c.root / "data" / "tune" / "x", about)
    made = [*trials(3)[:3], trials(3)[-1]]
    made[3].number = 3
    for t in made:
        journal = Journal(ledger.trial_folder(at.folder, t.number) / "metrics.jsonl")
        journal.begin(0, 9, 3)
        for epoch in range(3):
            journal.numbers(3 * epoch + 1, {"epoch": epoch, "train/loss": 1.0})
            journal.numbers(3 * epoch + 3, {"epoch": epoch, "train/loss": 0.5, "val/miou": 50.0 + epoch})
    return c, at, made


def runs(c: config.Config) -> tuple[mlflow.entities.Run, dict[str, mlflow.entities.Run], mlflow.MlflowClient]:
    client = mlflow.MlflowClient(database.store_uri(c.root))
    found = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    parent, = (r for r in found if "mlflow.parentRunId" not in r.data.tags)
    return parent, {r.data.tags["trial"]: r for r in found if r is not parent}, client


def test_a_sweep_is_a_parent_run_with_a_child_a_trial_each_point_once(swept):
    """Three drivers: one that sends two trials, one that is killed while it sends the third, one that ends the sweep."""
    c, at, made = swept
    told = [tune._told(c, at, t) for t in made]
    sweeps.SweepTracker(c, at.folder, at.about).sync(told[:2])
    second = sweeps.SweepTracker(c, at.folder, at.about)
    second._open()
    end, second.client.set_terminated = second.client.set_terminated, None
    second.sync(told[:3])
    assert second.warned and end is not None
    last = sweeps.SweepTracker(c, at.folder, at.about)
    last.sync(told)
    (at.folder / "best.json").write_text("{}")
    last.sync(told, "FINISHED", {"best/val_miou": 60.0}, (at.folder / "best.json",))
    parent, children, client = runs(c)
    assert parent.info.status == "FINISHED" and parent.data.metrics == {"best/val_miou": 60.0} and len(parent.info.run_name) <= 40
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {"sweep.json", "best.json"}
    assert children.keys() == {"0", "1", "2", "3"}
    assert {n: r.info.status for n, r in children.items()} == {"0": "FINISHED", "1": "FINISHED", "2": "FINISHED", "3": "FAILED"}
    for number, t in enumerate(made):
        run = children[str(number)]
        assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 3, 4, 6, 7, 9][:2 * t.epochs]
        assert run.data.params["neuron.leak"] == str(t.params["neuron.leak"]) and run.data.params["encode.timesteps"] == str(t.params["encode.timesteps"])
        assert len(run.info.run_name) <= 40 and not any(key.startswith("test/") for key in run.data.metrics)
        assert ("energy/exact_mj" in run.data.metrics) == (t.energy_mj is not None)


def test_mlflow_that_cannot_be_written_is_one_warning(swept, capsys):
    c, at, made = swept
    place = c.root / "data" / "mlflow"
    place.parent.mkdir(exist_ok=True)
    place.write_text("in the way")
    tracker = sweeps.SweepTracker(c, at.folder, at.about)
    for count in (1, 2, 3):
        tracker.sync([tune._told(c, at, t) for t in made[:count]])
    assert capsys.readouterr().err.count("warning: MLflow") == 1


# params.yaml

BEST = {"neuron.leak": 0.9371, "encode.timesteps": 6, "optim.lr": 1e-05, "optim.clip_norm": 1.0, "model.norm": "tdbn", "train.flip": True}
SPELLINGS = {
    "as delivered": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "blocks": lambda text: text.replace("  spiking_deeplab: {model: {name: spiking_deeplab}}\n", "  spiking_deeplab:    # mine\n    model:\n      name: spiking_deeplab   # of table 1\n"),
    "numbers there": lambda text: text.replace("{model: {name: spiking_deeplab}}", "{model: {name: spiking_deeplab}, neuron: {leak: 0.5}, train: {epochs: 3}}  # mine"),
    "empty sections": lambda text: text.replace("{model: {name: spiking_deeplab}}", "{model: {name: spiking_deeplab}, neuron: {}}"),
    "own comments": lambda text: text.replace("experiments:\n", "# höre\nexperiments:\n  # the first\n"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_apply_best_changes_the_experiment_and_not_a_byte_else(name, project):
    path = project / "params.yaml"
    path.write_bytes(SPELLINGS[name](path.read_text(encoding="utf-8")).encode())
    before, others = path.read_bytes(), [config.load(path, n).about for n in config.reproduced(path) if not n.endswith("/spiking_deeplab")]
    changes = verdict.apply(path, numbers(params=path), Trial(3, dict(BEST)))
    assert changes.keys() == BEST.keys() and changes["neuron.leak"][1] == 0.9371
    for benchmark in config.read(path).benchmarks:
        found = config.load(path, f"{benchmark}/spiking_deeplab")
        assert (found.neuron.leak, found.encode.timesteps, found.optim.lr, found.optim.clip_norm) == (0.9371, 6, 1e-05, 1.0)
        assert (found.model.norm, found.train.flip, found.model.name) == ("tdbn", True, "spiking_deeplab")
    assert [config.load(path, n).about for n in config.reproduced(path) if not n.endswith("/spiking_deeplab")] == others
    after = path.read_bytes()
    assert after.count(b"#") == before.count(b"#") and after.count(b"\r\n") - before.count(b"\r\n") in ((0, 4) if name == "CRLF" else (0,))
    start = before.index(b"experiments:\n" if name != "CRLF" else b"experiments:\r\n")
    assert after[:start] == before[:start] and after.split(b"  spiking_fcn:")[1] == before.split(b"  spiking_fcn:")[1]
    assert verdict.apply(path, numbers(params=path), Trial(3, dict(BEST))) == {} and path.read_bytes() == after


def test_apply_goes_by_the_benchmark_s_own_numbers(project):
    """What this benchmark has already, another may not: T is 8 on voc alone."""
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("      mean: 116.0\n", "      mean: 116.0\n      timesteps: 8\n"))
    assert settings.give(path, "voc/spiking_fcn", {"encode.timesteps": 4}) == {"encode.timesteps": (8, 4)}
    assert config.load(path, "voc/spiking_fcn").encode.timesteps == 4 and config.load(path, "voc/ann_fcn").encode.timesteps == 8


def test_numbers_that_do_not_fit_leave_the_file_as_it_was(project):
    path = project / "params.yaml"
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="neuron.leak"):
        settings.give(path, NAME, {"neuron.leak": 1.5})
    assert path.read_bytes() == before
