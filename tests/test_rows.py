"""Trainings as rows of a table, rows trained again, and the tables that come with the project."""
import csv
import sys
from pathlib import Path

import forked
import pytest

from benchmarks import rows
from snnseg.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
TABLES = [ROOT / "docs" / "results" / f"{name}.csv" for name in ("cpu", "mnist_cifar_gpu", "voc_partial_gpu")]
TINY = ("--set data.mnist_cifar.train=24 --set data.mnist_cifar.test=8 --set model.width=0.0625 --set train.epochs=1 --set encode.timesteps=2 "
        "--set energy.pictures=2 --set track.mlflow=false")
COMMANDS = [f"snnseg train mnist_cifar/{net} {TINY}" for net in ("ann_deeplab", "spiking_deeplab")]


def run(project, environment, *arguments):
    return forked.run([sys.executable, "-m", "benchmarks.rows", *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=250)


def test_commands_become_rows_and_rows_are_run_again(project, environment):
    table = project / "table.csv"
    done = run(project, environment, str(table), "--add", *COMMANDS)
    assert done.returncode == 0, done.stderr
    ann, spiking = rows.read(table)
    assert [row["command"] for row in (ann, spiking)] == COMMANDS
    assert (ann["net"], ann["protocol"], ann["coding"], ann["spikes"], ann["epochs"], ann["width"]) == ("ann_deeplab", "binary@32", "-", "-", "1", "0.0625")
    assert (spiking["net"], spiking["timesteps"], spiking["coding"], spiking["exact_3_bits_mj"]) == ("spiking_deeplab", "2", "direct", "-")
    assert all(float(row[column]) > 0 for row in (ann, spiking) for column in ("miou", "background_miou", "proxy_mj", "exact_mj", "memory_mj", "train_s"))
    assert float(ann["exact_3_bits_mj"]) > 0 and 0 < float(spiking["spikes"]) < 1 and ann["store"] == spiking["store"]

    done = run(project, environment, str(table), "--again", "2")
    assert done.returncode == 0, done.stderr
    told = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert told["miou"] == [spiking["miou"], spiking["miou"], "+0.0000"] and told["exact_3_bits_mj"] == ["-", "-", "-"]
    assert "finished before" in done.stderr and len(rows.read(table)) == 2


def test_a_row_of_this_commit_is_not_made_twice(project, environment, monkeypatch, capsys):
    made = []
    monkeypatch.chdir(project)
    monkeypatch.setattr(rows, "trained", lambda command, counts: made.append(command) or dict.fromkeys(rows.COLUMNS, "1") | {"command": command, "commit": "abc, then def"})
    monkeypatch.setattr(rows.provenance, "commit", lambda root: "def")
    for commands in (COMMANDS[:1], COMMANDS):
        monkeypatch.setattr(sys, "argv", ["rows", "table.csv", "--no-energy", "--add", *commands])
        rows.main()
    assert made == COMMANDS and "has a row already" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["table.csv", "--add", "rm -rf data"], "not of the form snnseg train"),
    (["table.csv", "--add", "snnseg train mnist_cifar/ann_fcn --set"], "not of the form"),
    (["table.csv", "--add", COMMANDS[0], "snnseg train mnist_cifar/ann_fcn --set train.epochs=x"], "train.epochs"),
    (["table.csv", "--add", "snnseg train 'mnist_cifar/ann_fcn"], "No closing quotation"),
    (["table.csv", "--again", "1"], "has 0 rows"),
    (["short.csv", "--again", "1"], "its columns are not net, protocol"),
    (["bytes.csv", "--again", "1"], "no table in UTF-8"),
    (["settings", "--again", "1"], "settings"),
    (["other.csv", "--again", "1"], "its columns are not net, protocol")])
def test_what_cannot_be_done_is_told_before_anything_is_trained(arguments, words, project, environment):
    (project / "other.csv").write_text("net,miou\nann_fcn,1\n")
    (project / "short.csv").write_text(",".join(rows.COLUMNS) + "\nann_fcn\n")
    (project / "bytes.csv").write_bytes(bytes(range(256)))
    done = run(project, environment, *arguments)
    assert done.returncode in (2, 3, 5) and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (project / "data").exists()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_each_row_of_the_project_can_be_run_again(table, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = rows.read(table)
    assert found
    for row in found:
        numbers = rows.numbers(row["command"])
        assert (numbers.experiment, numbers.protocol, str(numbers.train.epochs), str(numbers.train.batch), str(numbers.model.width)) == (
            row["net"], row["protocol"], row["epochs"], row["batch"], row["width"])


def test_no_option_is_taken_for_a_number(tmp_path):
    with pytest.raises(UsageError, match="not of the form"):
        rows.numbers("snnseg train mnist_cifar/ann_fcn --dry-run --set")
    with open(tmp_path / "none.csv", "w", newline="") as f:
        csv.DictWriter(f, rows.COLUMNS).writeheader()
    assert rows.read(tmp_path / "none.csv") == rows.read(tmp_path / "missing.csv") == []
