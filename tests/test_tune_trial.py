"""A trial goes on exactly where it was ended, is never run twice, and what its numbers cause is an outcome, not the end of a sweep."""
import json

import pytest
import torch

from snnseg import lock, seal
from snnseg.data.prepare import prepare
from snnseg.errors import Busy, Interrupted, OutOfMemory
from snnseg.models import saved
from snnseg.tuning import ledger, sweep, trial

SHORT = ["tune.epochs=2", "tune.holdout=0.25", "tune.energy_pictures=2"]


@pytest.fixture
def numbers(tiny):
    c = tiny("spiking_deeplab", *SHORT)
    prepare(c)
    return sweep.trial_config(c, {"encode.timesteps": 3, "neuron.leak": 0.8})


def run(numbers, folder, tell=lambda epoch, miou: None, stop=lambda: False):
    return trial.execute(numbers, folder, tell, stop)


def attempts(folder):
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]


def test_ended_in_the_middle_it_comes_out_the_same(numbers, tmp_path):
    """36 pictures in batches of 8, two epochs: ten steps. Stopped in the second epoch, gone on with: the same curve and weights."""
    whole, parted, told = tmp_path / "0000", tmp_path / "0001", []
    first = run(numbers, whole, lambda epoch, miou: told.append([epoch, miou]))
    assert first["state"] == "finished" and first["curve"] == told and [epoch for epoch, _ in told] == [1, 2] and first["miou"] == told[1][1]
    assert attempts(whole) == [{"from": 0, "steps": 10}, {"end": "finished"}] and first["energy_mj"] > 0
    heard = []
    with pytest.raises(Interrupted):
        run(numbers, parted, lambda epoch, miou: heard.append([epoch, miou]), lambda: bool(heard))
    assert heard == told[:1] and not (parted / "outcome.json").exists()
    again = run(numbers, parted, lambda epoch, miou: heard.append([epoch, miou]))
    assert heard == told and {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}
    begun, stopped, gone_on, ended = attempts(parted)
    assert (begun["from"], stopped, ended) == (0, {"end": "interrupted"}, {"end": "finished"}) and 5 < gone_on["from"] < 10
    assert seal.file_sha256(parted / "model" / "model.safetensors") == seal.file_sha256(whole / "model" / "model.safetensors")


def test_what_has_ended_is_not_run_again(numbers, tmp_path, monkeypatch):
    folder = tmp_path / "0000"
    outcome = run(numbers, folder)
    assert not list(folder.glob("step-*"))
    monkeypatch.setattr(trial.loop, "fit", None)
    assert run(numbers, folder) == outcome and len(attempts(folder)) == 2


def test_the_part_held_out_is_in_no_training_and_the_test_split_untouched(numbers):
    data = trial.loaded(numbers)
    assert (len(data.train), len(data.test)) == (36, 12)        # of 48; the test split has 16
    other = trial.loaded(numbers.model_copy(update={"tune": numbers.tune.model_copy(update={"seed": 1})}))
    assert not (other.test.mask_NHW == data.test.mask_NHW).all()


def test_the_net_is_saved_with_its_numbers(numbers, tmp_path):
    run(numbers, tmp_path / "0000")
    model, found, about = saved.load(tmp_path / "0000" / "model", numbers.root)
    assert found.timesteps == 3 and found.neuron.leak == 0.8 and about["train_samples"] == 36
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_net_that_overflows_is_an_outcome(numbers, tmp_path):
    poisoned = numbers.model_copy(update={"encode": numbers.encode.model_copy(update={"std": 1e-38})})
    outcome = run(poisoned, tmp_path / "0000")
    assert outcome["state"] == ledger.NOT_FINITE and "nan" in outcome["why"] and outcome["miou"] is None
    assert run(numbers, tmp_path / "0000") == outcome, "an outcome is one for good"


def test_memory_that_runs_out_is_an_outcome_and_a_full_disk_is_none(numbers, tmp_path, monkeypatch):
    def short(*arguments):
        raise OutOfMemory("out of memory with train.batch 8")

    monkeypatch.setattr(trial.loop, "fit", short)
    assert run(numbers, tmp_path / "0000")["state"] == ledger.OUT_OF_MEMORY
    monkeypatch.setattr(trial.loop, "fit", lambda *arguments: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run(numbers, tmp_path / "0001")
    assert not (tmp_path / "0001" / "outcome.json").exists()


def test_two_processes_in_one_trial_are_one_too_many(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "WAIT_S", 0.5)
    with lock.held(tmp_path / "0000", "training a trial"), pytest.raises(Busy, match="is training a trial here"):
        run(numbers, tmp_path / "0000")
