"""Results as the stages leave them, made up: what the page is shown without a training."""
import csv
import io
import json
from pathlib import Path

import numpy as np

from snnseg import config
from snnseg.report.table import csv_text
from snnseg.training.report import curve_csv

CLASSES = {"mnist_cifar": ["background", "digit"], "voc": ["background", "dog", "cat"], "ddd17": ["flat", "sky", "object"]}
PALETTE = ["#000000", "#E69F00", "#56B4E9"]
LAYERS = "features.0", "features.1", "classifier.0"


def number(*parts: object) -> float:
    """0 to 1, a function of the names alone."""
    return (sum(ord(c) * (k + 7) for k, c in enumerate("/".join(map(str, parts)))) % 997) / 997


def about(numbers: config.Config, classes: list[str]) -> dict:
    return numbers.about | {"fingerprint": "0123456789abcdef" * 4, "store": "ab" * 32, "protocol": numbers.protocol, "classes": classes,
                            "palette": PALETTE[:len(classes)], "partial": "3 138/450" if numbers.benchmark == "voc" else None, "left_out": 0, "train_samples": 48,
                            "test_samples": 16, "device": "cpu x86_64 x2", "torch": "2.13.0", "commit": "0123456789ab", "uid": "u" * 32, "seconds": 12.5, "steps": 12,
                            "parameters": 1234}


def make(root: Path, name: str, classes: list[str] | None = None, parts: str = "energy robustness curve") -> Path:
    """The files of one experiment of root/params.yaml below root/data/result; `parts` are what is there beside the evaluation's."""
    numbers = config.load(root / "params.yaml", name)
    folder, classes = numbers.result_folder, classes or CLASSES[numbers.data.dataset]
    folder.mkdir(parents=True, exist_ok=True)
    iou = {c: 100 * number(name, c) for c in classes} | ({classes[-1]: None} if len(classes) > 2 else {})
    scores = [s for s in iou.values() if s is not None]
    told = {"benchmark": numbers.benchmark, "experiment": numbers.experiment, "protocol": numbers.protocol, "timesteps": numbers.timesteps,
            "trained_timesteps": numbers.timesteps, "statistics": "running", "miou": sum(scores) / len(scores), "background_miou": 31.25, "iou": iou,
            "pixels": dict.fromkeys(classes, 1000)}
    save(folder / "metrics.json", told)
    save(folder / "about.json", about(numbers, classes))
    rng = np.random.default_rng(len(name))
    truth = np.random.default_rng(0).integers(0, len(classes), (3, 32, 32)).astype(np.uint8)
    with open(folder / "pictures.npz", "wb") as f:
        np.savez_compressed(f, image=rng.integers(0, 255, (3, 32, 32, 3)).astype(np.uint8), truth=truth,
                            prediction=np.where(rng.random(truth.shape) < 0.8, truth, 0).astype(np.uint8))
    mj = 0.01 + number(name, "mj")
    if "energy" in parts:
        ways = {"proxy": mj / 3, "exact": mj, "with_memory": 9 * mj} | ({} if numbers.spiking else {"exact_3_bits": mj / 4})
        save(folder / "energy.json", told | {"energy_mj": ways, "picojoules": {"multiply": 3.7, "add": 0.9}, "spikes": {"a_neuron_and_step": 0.125, "dead_channels": {}, "saturated_channels": {}} if numbers.spiking else None}
             | ({} if numbers.spiking else {"quantised": [{"bits": bits, "exact_mj": mj * (bits + 8) / 40} for bits in range(1, 9)]}))
        steps = [{"layer": layer, "channels": 4, "neurons": 64, "step": t + 1, "rate": f"{number(layer, t):.6f}"} for layer in LAYERS for t in range(4)] if numbers.spiking else []
        (folder / "spikes.csv").write_text(csv_text(steps, ["layer", "channels", "neurons", "step", "rate"]))
    if "robustness" in parts:
        points = [{"level": level, "miou": told["miou"] * (1 - level / 200), "spread": 0.5 if level else 0.0, "draws": 3 if level else 1, "drop": level / 2}
                  for level in (0, 20.0, 40.0, 80.0)]
        save(folder / "robustness.json", told | {"noise": {"gaussian": points}})
    if "curve" in parts:
        lines = [{"step": 6 * (e + 1), "epoch": e, "train/epoch_loss": 1 / (e + 1), "test/miou": 10.0 * e} for e in range(4)]
        (folder / "curve.csv").write_text(curve_csv(lines))
    if "steps" in parts and numbers.spiking:
        curve = [{"timesteps": T, "miou": 20.0 + T} for T in (1, 2, 4)]
        save(folder / "timesteps.json", told | {"anytime": curve, "inference": {"hold": [*curve, {"timesteps": 8, "miou": None}]}, "trained": curve[1:]})
        _activations(folder, truth, told)
    if "steps" in parts and not numbers.spiking:
        save(folder / "conversion.json", told | {"thresholds": {"of": "activations", "per": "channel"}, "ann_miou": 40.0, "quantised": [{"bits": 2, "miou": 30.0}, {"bits": 3, "miou": 38.0}, {"bits": 30, "miou": 40.0}], "curve": [{"timesteps": T, "miou": 40 - 30 / T, "spikes": 0.1} for T in (1, 4, 16)]})
    return folder


def _activations(folder: Path, truth: np.ndarray, told: dict) -> None:
    maps = {f"map_{layer}": np.random.default_rng(k).random((4, 1, 8, 8), np.float32) for k, layer in enumerate(LAYERS)}
    with open(folder / "activations.npz", "wb") as f:
        np.savez_compressed(f, answer_TPHW=np.stack([truth[:1]] * 4), image=np.zeros((1, 32, 32, 3), np.uint8), truth=truth[:1], **maps)
    neuron = {"potential": [0.5, 1.25, 0.75, 1.5], "spikes": [0, 1, 0, 1], "threshold": 1.0, "channel": 3, "cell": [1, 2]}
    save(folder / "activations.json", told | {"right": [0.25, 0.5, 0.75, 1.0], "traced": {"layer": LAYERS[0], "neurons": [neuron]}})


def sweep(root: Path) -> Path:
    """A sweep that has come to its verdict."""
    folder = root / "data" / "tune" / "mnist_cifar-spiking_deeplab-0123"
    folder.mkdir(parents=True)
    trials = [{"trial": k, "neuron.leak": 0.5 + k / 10, "state": "finished", "miou": 50 + k, "energy_mj": "", "epochs": 3, "seconds": 1, "why": ""} for k in range(3)]
    (folder / "trials.csv").write_text(csv_text(trials, list(trials[0])))
    save(folder / "best.json", {"experiment": "mnist_cifar/spiking_deeplab", "best": {"number": 2}, "test_miou": 51.5, "validated_on": "0.1 of the training split",
                                "trials": {"finished": 3}, "importance": {"neuron.leak": 1.0}, "command": "snnseg train mnist_cifar/spiking_deeplab"})
    (folder / "sweep.html").write_text("<p>all trials</p>")
    return folder


def save(path: Path, told: dict) -> None:
    path.write_text(json.dumps(told, indent=1) + "\n")


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
