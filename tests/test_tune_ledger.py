"""The book of a sweep: whatever is killed at whatever moment, as many trials are executed as were asked for, and none twice."""
import json
import random

import numpy as np
import pytest
from conftest import ROOT

from snnseg import config
from snnseg.data import holdout
from snnseg.data.store import Split
from snnseg.errors import ConfigError
from snnseg.tuning import ledger, space, study, sweep, trial
from snnseg.tuning.ledger import Ledger, Trial


def numbers(*sets: str) -> config.Config:
    return config.load(ROOT / "params.yaml", "mnist_cifar/spiking_deeplab", sets)


def test_a_line_is_there_before_anything_follows(tmp_path):
    book = Ledger(tmp_path)
    first = book.begin({"neuron.leak": 0.9})
    assert [t.number for t in Ledger(tmp_path).open] == [0]
    book.settle(0, "finished", miou=50.0, epochs=3, curve=[[1, 40.0], [3, 50.0]])
    again = Ledger(tmp_path)
    assert again.open == [] and again.settled == [first] and first.counted and first.after(1) == 40.0 and first.after(2) is None
    assert book.begin({}).number == 1
    with pytest.raises(ValueError, match="trial 0 is settled as finished"):
        book.settle(0, "crashed")


def test_a_half_written_line_is_cut_off(tmp_path):
    book = Ledger(tmp_path)
    book.begin({"neuron.leak": 0.9})
    book.begin({"neuron.leak": 0.8})
    whole = book.path.read_text()
    for end in range(1, len(whole.splitlines()[1])):
        book.path.write_text(whole[:len(whole.splitlines()[0]) + 1 + end])
        again = Ledger(tmp_path)
        again.mend()
        assert [t.number for t in again.open] == [0]
        again.settle(0, "crashed")
        assert [t.state for t in Ledger(tmp_path).trials.values()] == ["crashed"]


@pytest.mark.parametrize("state", ["not finite", "crashed", "out of memory", "failed"])
def test_a_trial_that_failed_has_no_score_whatever_its_last_epoch_said(state):
    failed = Trial(0, {}, state, miou=99.0, curve=[[1, 99.0]])
    assert not failed.counted and failed.after(1) is None


class Killed(Exception):
    pass


class World:
    """Runs a sweep's trials as Ray would, two at a time, and is killed before or after any line of the book."""

    def __init__(self, config, folder, fuse: int):
        self.config, self.folder, self.fuse = config, folder, fuse
        self.executed: list[int] = []       # trainings that came to their end

    def tick(self) -> None:
        self.fuse -= 1
        if self.fuse == 0:
            raise Killed

    def execute(self, number: int) -> dict:
        """What a worker does: an outcome that is there is not made again."""
        path = ledger.outcome_file(self.folder, number)
        if path.exists():
            return json.loads(path.read_text())
        self.tick()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"state": "finished", "miou": 50.0 + number, "epochs": 3, "curve": [[3, 50.0 + number]], "energy_mj": 1.0}))
        self.executed.append(number)
        self.tick()
        return json.loads(path.read_text())

    def run(self) -> list[Trial]:
        book = Ledger(self.folder)
        book.mend()
        for one in book.open:
            sweep._recover(book, self.folder, one)
        now = sweep.Sweep(self.config, space.read(self.config), self.folder, book, lambda settled: None)
        live: list[int] = []
        while True:
            while len(live) < 2 and (found := now.next()):
                self.tick()
                live.append(found.number)
            if not live:
                return book.settled
            number = live.pop(random.randrange(len(live)))
            outcome = self.execute(number)
            now.settle(number, outcome)
            self.tick()


@pytest.mark.parametrize("fuse", range(1, 30, 3))
def test_killed_again_and_again_all_are_executed_and_none_twice(fuse, tmp_path):
    """A driver that lives for `fuse` moments, started until it comes through."""
    random.seed(fuse)
    c = numbers("tune.trials=9", "tune.startup=3")
    executed, kills = [], 0
    for _ in range(100):
        world = World(c, tmp_path, fuse + kills)     # a little longer each time: with one moment nothing is ever done
        try:
            settled = world.run()
            executed += world.executed
            break
        except Killed:
            executed += world.executed
            kills += 1
    assert kills > 0 and sorted(executed) == list(range(9)), (kills, executed)
    assert [t.number for t in sorted(settled, key=lambda t: t.number)] == list(range(9)) and {t.state for t in settled} == {"finished"}
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines if "params" in line] == list(range(9)) and sum("state" in line for line in lines) == 9
    assert len({json.dumps(t.params) for t in settled}) == 9, "a sweep that went on drew the same numbers again"


def test_more_trials_go_on_to_that_many_and_fewer_do_nothing(tmp_path):
    for count, total in ((3, 3), (5, 5), (2, 5)):
        world = World(numbers(f"tune.trials={count}"), tmp_path, -1)
        assert len(world.run()) == total
    assert world.executed == []


def test_a_sweep_hears_each_epoch_once_and_stopped_trials_have_the_last(tmp_path):
    c = numbers("tune.trials=2")
    folder = ledger.trial_folder(tmp_path, 0)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 9, "epoch": 0, "val/miou": 40.0}) + "\n")       # of an attempt before
    now = sweep.Sweep(c, space.read(c), tmp_path, Ledger(tmp_path), lambda settled: None)
    assert now.next().number == 0
    now.heard(0, 1, 40.0)
    now.heard(0, 2, 45.0)
    now.settle(0, {"state": "stopped"})
    found, = Ledger(tmp_path).settled
    assert (found.curve, found.miou, found.epochs, found.energy_mj) == ([[1, 40.0], [2, 45.0]], 45.0, 2, None)


def begun(root, c, digest="d", code="c"):
    """As `sweep.place`, without a store."""
    swept = c.model_dump(mode="json")["tune"]["space"]
    about = {"identity": sweep.identity(c, list(swept), digest, code), "space": swept}
    folder = root / f"mnist_cifar-spiking_deeplab-{sweep.hashlib.sha256(json.dumps(about['identity'], sort_keys=True).encode()).hexdigest()[:12]}"
    sweep._refuse_another_space(folder, about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(about))
    return folder


def test_the_same_command_finds_its_sweep_and_other_numbers_another(tmp_path):
    mine = begun(tmp_path, numbers())
    same = ["tune.trials=99", "tune.startup=3", "tune.concurrency=1", "train.epochs=99", "train.log_every=1", "neuron.leak=0.7", "encode.timesteps=2",
            "evaluate.batch=8", "cluster.address=auto", "track.mlflow=false"]
    for text in same:
        assert begun(tmp_path, numbers(text)) == mine, text
    others = ["model.width=0.5", "optim.lr=0.01", "train.batch=8", "tune.epochs=4", "tune.holdout=0.2", "tune.seed=1", "tune.name=other",
              "tune.objectives=[miou, energy]", "tune.grace=2"]
    assert len({begun(tmp_path, numbers(text)) for text in others} | {mine}) == len(others) + 1
    assert begun(tmp_path, numbers(), digest="another store") != mine and begun(tmp_path, numbers(), code="other code") != mine


@pytest.mark.parametrize("text", ["tune.space.neuron.leak={float: [0.6, 1.0]}", "tune.space.neuron.leak={log: [0.5, 1.0]}", "tune.space.neuron.leak=null",
                                  "tune.space.optim.lr={log: [0.001, 0.1]}"])
def test_a_changed_space_is_refused_with_both_ways_on(text, tmp_path):
    mine = begun(tmp_path, numbers())
    with pytest.raises(ConfigError) as caught:
        begun(tmp_path, numbers(text))
    told = str(caught.value)
    assert 'neuron.leak: {"float": [0.5, 1.0]}' in told and "--set tune.name=NAME" in told and f"remove {mine}" in told and caught.value.exit_code == 3
    assert begun(tmp_path, numbers(text, "tune.name=other")) != mine
    assert begun(tmp_path, numbers()) == mine


def settled(count: int, state: str = "finished") -> list[Trial]:
    rng = random.Random(3)
    made = []
    for k in range(count):
        T, leak = rng.randint(1, 6), rng.uniform(0.5, 1.0)
        miou = 40.0 + 5 * T + leak
        made.append(Trial(k, {"neuron.leak": leak, "neuron.threshold": rng.uniform(0.5, 2), "encode.timesteps": T}, state, miou, float(T), 3, 1.0, [[1, miou], [3, miou]]))
    return made


def test_the_sampler_learns_from_the_ledger():
    """T alone counts: after twenty trials TPE asks for large T more often than chance would."""
    ranges = space.read(numbers())
    asked = [study.Study(ranges, ["miou"], seed, 10, settled(20)).ask()[0]["encode.timesteps"] for seed in range(30)]
    blind = [study.Study(ranges, ["miou"], seed, 10, settled(20, "crashed")).ask()[0]["encode.timesteps"] for seed in range(30)]
    assert np.mean(asked) > np.mean(blind) + 0.5, (np.mean(asked), np.mean(blind))


def test_draws_follow_from_the_seed_and_the_trials_before():
    ranges = space.read(numbers())

    def first(seed: int, before: list[Trial]) -> dict:
        return study.Study(ranges, ["miou"], seed, 10, before).ask()[0]

    assert first(0, []) == first(0, []) != first(1, [])
    assert first(0, settled(3)) == first(0, settled(3)) != first(0, [])


def test_an_open_trial_keeps_its_numbers_and_stopped_and_failed_ones_are_told():
    ranges, trials = space.read(numbers()), settled(6)
    trials[1].state, trials[2].state, trials[3].state, trials[3].miou = "stopped", "not finite", None, None
    now = study.Study(ranges, ["miou"], 0, 2, trials)
    assert now.under_way[3].params == trials[3].params
    assert sorted(t.state.name for t in now.study.trials) == ["COMPLETE"] * 3 + ["FAIL", "PRUNED", "RUNNING"]
    trials[3].state, trials[3].miou = "finished", 70.0
    now.tell(trials[3])
    assert [t.value for t in now.study.trials if t.params == trials[3].params] == [70.0]


def test_the_front_is_what_no_other_beats():
    """By hand: (10, 1), (30, 2), (20, 3) is beaten by (30, 2), (40, 4), (40, 5) is beaten by (40, 4)."""
    made = [Trial(k, {}, "finished", miou, mj) for k, (miou, mj) in enumerate([(40.0, 5.0), (20.0, 3.0), (10.0, 1.0), (40.0, 4.0), (30.0, 2.0)])]
    made += [Trial(5, {}, "stopped", 99.0, 0.5), Trial(6, {}, "finished", 99.0, None), Trial(7, {}, "crashed", 99.0, 0.1)]
    assert [t.number for t in study.front(made)] == [2, 4, 3]


def test_importance_names_what_counts():
    ranges = space.read(numbers())
    found = study.importance(ranges, settled(30), 1, 0)
    assert max(found, key=found.get) == "encode.timesteps" and sum(found.values()) == pytest.approx(1, abs=0.01)
    assert study.importance(ranges, settled(3), 1, 0) == {} and study.importance(ranges, settled(30, "crashed"), 1, 0) == {}


def pictures(count: int) -> Split:
    return Split(np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8), {})


def test_pictures_held_out_are_a_seeded_share_and_in_no_training():
    whole = pictures(100)
    rest, back = holdout.held_out(whole, 0.1, 0)
    seen, kept = rest.input[:, 0, 0, 0].tolist(), back.input[:, 0, 0, 0].tolist()
    assert len(kept) == 10 and sorted(seen + kept) == list(range(100)) and (back.mask_NHW[:, 0, 0] == kept).all()
    assert holdout.held_out(whole, 0.1, 0)[1].input[:, 0, 0, 0].tolist() == kept != holdout.held_out(whole, 0.1, 1)[1].input[:, 0, 0, 0].tolist()
    assert [len(s) for s in holdout.held_out(pictures(3), 0.01, 0)] == [2, 1]
    with pytest.raises(ValueError, match="leaves none"):
        holdout.held_out(pictures(1), 0.5, 0)


@pytest.mark.parametrize("seed", range(5))
def test_windows_held_out_share_no_frame_with_the_training(seed):
    """A fifth of 50 frames. With T frames a window, T - 1 windows on each side share a frame with one held out and are in neither part."""
    def parts(steps: int) -> tuple[Split, Split]:
        window_MT = np.arange(51 - steps)[:, None] + np.arange(steps)
        return holdout.held_out(Split(np.zeros((50, 2, 2, 2), np.uint16), np.zeros((50, 2, 2), np.uint8), {}, window_MT), 0.2, seed)

    one, four = parts(1)[1].window_MT[:, -1].tolist(), parts(4)
    assert len(one) == 10 and one == list(range(one[0], one[0] + 10))
    assert four[1].window_MT[:, -1].tolist() == [frame for frame in one if frame >= 3], "other labels are scored with more time steps"
    assert not np.isin(four[0].window_MT, four[1].window_MT).any() and 47 - 10 - 6 <= len(four[0]) <= 47 - 7 - 3


def test_a_stretch_in_which_no_window_ends_is_the_nearest_one():
    """Two windows of sixteen frames, far apart; a stretch of two labels is mostly between them."""
    window_MT = np.array([np.arange(16), np.arange(60, 76)])
    split = Split(np.zeros((76, 2, 2, 2), np.uint16), np.zeros((76, 2, 2), np.uint8), {}, window_MT)
    for seed in range(8):
        rest, back = holdout.held_out(split, 0.02, seed)
        assert len(rest) == len(back) == 1


def test_the_trial_s_config_has_its_epochs_and_its_numbers():
    c = sweep.trial_config(numbers("tune.epochs=5", "train.validate_every=0"), {"encode.timesteps": 3, "neuron.leak": 0.6})
    assert (c.train.epochs, c.train.validate_every, c.encode.timesteps, c.neuron.leak, c.timesteps) == (5, 1, 3, 0.6, 3)


def test_what_the_loop_calls_test_is_named_val(tmp_path):
    told = []
    report = trial.Validated(trial.Reporters([trial.Journal(tmp_path / "metrics.jsonl")]), lambda epoch, miou: told.append((epoch, miou)))
    report.begin(0, 9, 1)
    report.numbers(3, {"epoch": 0, "train/loss": 1.0})
    report.numbers(6, {"epoch": 0, "train/loss": 1.0, "test/miou": 50.0, "test/iou/x": None})
    assert told == [(1, 50.0)] and trial.curve(tmp_path) == [[1, 50.0]] and "test/" not in (tmp_path / "metrics.jsonl").read_text()
