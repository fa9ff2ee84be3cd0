"""A trained net's spikes and energy as files, in the table and in MLflow."""
import csv
import json

import pytest

from snnseg.errors import StoreMissing
from snnseg.report import energy, result, side_by_side, table
from snnseg.tracking import database, measurements


@pytest.fixture
def counted(trained):
    """A tiny trained net, to be counted on a few pictures."""
    return lambda experiment, *overrides: trained(experiment, "energy.pictures=11", *overrides)


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("coding", ["direct", "signed_poisson"])
def test_a_spiking_net_is_counted(counted, coding):
    numbers = counted("spiking_fcn", f"encode.coding={coding}")
    found = energy.write(numbers)
    told = json.loads((numbers.result_folder / "energy.json").read_text())
    assert told == found.summary and told["pictures"] == 11 and told["timesteps"] == 2
    assert list(told["energy_mj"]) == ["proxy", "exact", "with_memory"] and 0 < told["energy_mj"]["exact"] < told["energy_mj"]["with_memory"]
    assert 0 < told["spikes"]["a_neuron_and_step"] < 1 and len(told["spikes"]["of_layers"]) == 11
    layers, steps = rows(numbers.result_folder / "energy.csv"), rows(numbers.result_folder / "spikes.csv")
    for way, mj in told["energy_mj"].items():
        mine = [float(r["pj"]) for r in layers if r["way"].replace(" ", "_") == way]
        assert len(mine) == 16 and sum(mine) / 1e9 == pytest.approx(mj, rel=1e-4)
    assert len(steps) == 11 * 2 and all(0 <= float(r["rate"]) <= 1 for r in steps)
    fired = sum(float(r["rate"]) * int(r["neurons"]) for r in steps)
    assert fired == pytest.approx(told["spikes"]["a_picture"], rel=1e-3)


def test_an_ann_has_its_quantised_rival_and_no_spikes(counted):
    numbers = counted("ann_deeplab", "energy.rival_timesteps=20")
    told = energy.write(numbers).summary
    assert list(told["energy_mj"]) == ["proxy", "exact", "with_memory", "exact_5_bits", "with_memory_5_bits"] and told["spikes"] is None
    assert told["energy_mj"]["exact_5_bits"] < told["energy_mj"]["exact"] < told["energy_mj"]["proxy"] * 1.2
    assert rows(numbers.result_folder / "spikes.csv") == []
    few = {q["bits"]: q["exact_mj"] for q in told["quantised"]}
    assert list(few) == list(range(1, 9)) and few[5] == told["energy_mj"]["exact_5_bits"] and list(few.values()) == sorted(few.values())
    dearer = numbers.model_copy(update={"energy": numbers.energy.model_copy(update={"multiply_pj": 7.4, "add_pj": 1.8})})
    assert energy.measure(numbers.model_folder, dearer).summary["energy_mj"]["exact"] == pytest.approx(2 * told["energy_mj"]["exact"])
    assert "mJ a picture" in energy.lines(told) and "spikes" not in energy.lines(told)
    assert f"exact, activations of 1 to 8 bits: {few[1]:.4f} {few[2]:.4f} " in energy.lines(told)


def test_the_table_has_it_or_says_not_run(counted):
    numbers = counted("spiking_deeplab")
    result.write(numbers)
    place = numbers.result_folder.parent.parent, numbers.report, ["mnist_cifar/spiking_deeplab"]
    row, = table.write(*place)
    assert {row[k] for k in ("spike_rate", "proxy_mj", "exact_mj", "memory_mj")} == {"not run"} and set(row) == set(table.COLUMNS)
    told = energy.write(numbers).summary
    row, = table.write(*place)
    assert float(row["exact_mj"]) == pytest.approx(told["energy_mj"]["exact"], abs=1e-5) and 0 < float(row["spike_rate"]) < 1
    layers = side_by_side.spikes(place[0], place[2])
    assert len(layers) == 8 and sum(float(r["rate"]) * r["neurons"] for r in layers) == pytest.approx(told["spikes"]["a_picture"], rel=1e-3)


def test_the_counts_do_not_depend_on_batches(counted):
    numbers = counted("spiking_deeplab", "encode.coding=signed_poisson")
    other = numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"batch": 3})})
    assert energy.measure(numbers.model_folder, numbers).summary == energy.measure(numbers.model_folder, other).summary


def test_mlflow_gets_energy_and_rates(counted):
    import mlflow

    numbers = counted("spiking_deeplab", "track.mlflow=true")
    result.write(numbers)
    found = energy.write(numbers)
    measurements.log_energy(numbers, found.summary, found.about)
    client = mlflow.MlflowClient(database.store_uri(numbers.root))
    mine, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert mine.data.metrics["energy/exact_mj"] == pytest.approx(found.summary["energy_mj"]["exact"])
    assert {"energy/proxy_mj", "energy/with_memory_mj", "spikes/rate", "spikes/rate/block1.0"} <= set(mine.data.metrics)
    assert {"energy.json", "energy.csv", "spikes.csv"} <= {a.path for a in client.list_artifacts(mine.info.run_id)}


def test_a_net_that_is_not_there_is_named(tiny):
    with pytest.raises(StoreMissing, match="snnseg train"):
        energy.write(tiny("spiking_fcn"))
