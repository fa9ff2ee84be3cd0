"""Verbs of one net: train it, score it, count what it costs."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from snnseg.cli.app import PARAMS, Experiment, Params, Set, app, experiment_named

if TYPE_CHECKING:
    from snnseg.sections import Config

Model = Annotated[Path | None, typer.Option("--model", help="A trained net elsewhere: data/run/NAME/model.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="A published net, measured on the store of this benchmark's data: models/NAME.safetensors.")]


@app.command()
def train(experiment: Experiment, dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell how much memory a step would take, train nothing.")] = False,
          set: Set = None, params: Params = PARAMS) -> None:
    """Train one experiment, or go on with it where it stopped.

    With --set the result stays in its run folder; without, it also becomes data/model/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg train voc/spiking_fcn
      snnseg train mnist_cifar/ann_fcn --set train.epochs=9
      snnseg train mnist_cifar/spiking_fcn --dry-run --set encode.timesteps=20
    """
    from snnseg import config as configs

    numbers = configs.load(params, experiment_named(params, experiment), set or [])
    from snnseg.tracking import database, trainings
    from snnseg.training import forecast, run

    if dry_run:
        database.load(numbers)
        held = run.loaded(numbers) if numbers.store.exists() else None      # noqa: F841  (as in a training)
        print(f"{numbers.name}, batch {numbers.train.batch}, {numbers.timesteps} time steps, {numbers.data.size} x {numbers.data.size}: "
              f"{forecast.beforehand(numbers)}")
        return
    folder = run.train(numbers, trainings.trackers)
    if not set:
        run.publish(folder, numbers)
    print(folder)


def _of_a_trained_net(params: Path, experiment: str, set: list[str] | None, section: str, model: Path | None, weights: Path | None) -> Config:
    """The numbers, of which `section` alone was changed, or how many pictures are evaluated together, or for a published net its data.

    Raises UsageError, ConfigError.
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError

    numbers = configs.load(params, experiment_named(params, experiment), set or [])
    free = (f"{section}.", "evaluate.batch", *["data."] * bool(weights))
    if others := [text for text in set or [] if not text.strip().startswith(free)]:
        raise UsageError(f"--set {others[0]}: a trained net keeps its own numbers. Only {section}.* can be set here; train it anew for others.")
    if model and weights:
        raise UsageError(f"--model {model} --weights {weights}: two nets, one is measured at a time. Leave one of them out.")
    if weights and weights.suffix != ".safetensors":
        raise UsageError(f"--weights {weights}: a published net is a .safetensors file. Give a folder as --model.")
    return numbers


def _measured(report: ModuleType, numbers: Config, model: Path | None, set: list[str] | None, *more: Any) -> tuple[Any, bool]:
    """What `report` measures of a net, and whether it was written too: with other numbers or another net it is shown only."""
    if set or model:
        return report.measure((model or numbers.model_folder).absolute(), numbers, *more), False
    return report.write(numbers, *more), True


def _summed_up(report: ModuleType, log: Callable[..., None], numbers: Config, model: Path | None, set: list[str] | None) -> None:
    """Measure, tell MLflow of what was written, and show it in lines."""
    found, written = _measured(report, numbers, model, set)
    if written:
        log(numbers, found.summary, found.about)
    print(report.lines(found.summary))


@app.command()
def evaluate(experiment: Experiment, model: Model = None, weights: Weights = None,
             set: Set = None, params: Params = PARAMS) -> None:
    """Score a trained net on the whole test split, with pictures.

    All numbers are those it was trained with, but for the section evaluate. With --set, --model or --weights the scores are shown only;
    without, they also become data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg evaluate voc/spiking_fcn
      snnseg evaluate ddd17/spiking_fcn --set evaluate.timesteps=8
      snnseg evaluate mnist_cifar/ann_fcn --set evaluate.norm=batch
      snnseg evaluate mnist_cifar/ann_deeplab --weights models/NAME.safetensors --set data.mnist_cifar.classes=digits
    """
    numbers = _of_a_trained_net(params, experiment, set, "evaluate", model, weights)
    from snnseg.report import result
    from snnseg.tracking import measurements

    found, written = _measured(result, numbers, model or weights, set)
    if written:
        measurements.log_result(numbers, found.metrics, found.about)
    print(json.dumps(found.metrics, indent=1))


@app.command()
def export(experiment: Experiment, out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
           model: Model = None,
           dtype: Annotated[Literal["bf16", "fp32"], typer.Option("--dtype", help="Of the weights: rounded to bfloat16, or as they are.")] = "bf16",
           score: Annotated[bool, typer.Option("--score", help="Score what is written, on its test split, and count its energy.")] = False,
           force: Annotated[bool, typer.Option("--force", help="Replace a file that holds something else.")] = False,
           set: Set = None, params: Params = PARAMS) -> None:
    """Write a trained net as one file that travels.

    Weights, and in the file's own header its numbers, where it comes from and, with --score, its scores: the file alone says what it
    is, and --weights of the verbs that measure a net takes it. models/README.md lists those that come with the project.

    \b
    Examples:
      snnseg export mnist_cifar/spiking_fcn spiking_fcn.safetensors
      snnseg export voc/ann_fcn ann_fcn.safetensors --dtype fp32 --score --set energy.pictures=16
    """
    numbers = _of_a_trained_net(params, experiment, set, "energy", model, None)
    from snnseg.report import export as exporting

    made = exporting.export((model or numbers.model_folder).absolute(), numbers, out, dtype, score, force)
    print(exporting.lines(made))


@app.command()
def energy(experiment: Experiment, model: Model = None, weights: Weights = None,
           set: Set = None, params: Params = PARAMS) -> None:
    """Count a trained net's spikes and energy on test pictures.

    Three ways side by side: the paper's proxy (eqs. 8 to 12), exact operations, and these with the bytes that move. All numbers are
    those it was trained with, but for the section energy. With --set, --model or --weights the counts are shown only; without, they also become
    energy.json, energy.csv and spikes.csv in data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg energy voc/spiking_fcn
      snnseg energy mnist_cifar/ann_fcn --set energy.rival_timesteps=20
    """
    numbers = _of_a_trained_net(params, experiment, set, "energy", model, weights)
    from snnseg.report import energy as counting
    from snnseg.tracking import measurements

    _summed_up(counting, measurements.log_energy, numbers, model or weights, set)


@app.command()
def activations(experiment: Experiment, model: Model = None, weights: Weights = None,
                set: Set = None, params: Params = PARAMS) -> None:
    """Show what a trained net does step by step.

    Maps of its layers, its answer after each step, potentials and spikes of single neurons: activations.png, activations.gif,
    membrane.png, and all numbers in activations.npz and activations.json, in data/result/BENCHMARK/EXPERIMENT. With --set, --model or --weights
    they go to data/report/activations/BENCHMARK/EXPERIMENT. All numbers are those it was trained with, but for the section activations.

    \b
    Examples:
      snnseg activations voc/spiking_fcn
      snnseg activations mnist_cifar/spiking_deeplab --set activations.pictures=[3,17] --set activations.traced=head
    """
    numbers = _of_a_trained_net(params, experiment, set, "activations", model, weights)
    from snnseg.report import activations as seeing
    from snnseg.tracking import measurements

    found, written = _measured(seeing, numbers, model or weights, set)
    folder = numbers.result_folder if written else numbers.report / "activations" / numbers.name
    if written:
        measurements.log_activations(numbers, found.summary, found.about)
    else:
        seeing.save(found, folder)
    print(seeing.lines(found.summary))
    print(folder)


@app.command()
def robustness(experiment: Experiment, model: Model = None, weights: Weights = None,
               set: Set = None, params: Params = PARAMS) -> None:
    """Score a trained net on noisy test pictures (figure 11).

    Each net sees the same noisy bytes; those of fgsm and pgd are made against the net itself. All numbers are those it was trained
    with, but for the section robustness. With --set, --model or --weights the scores are shown only; without, they also become robustness.json
    and robustness.csv in data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg robustness voc/spiking_fcn
      snnseg robustness mnist_cifar/ann_fcn --set robustness.gaussian=[10.0,50.0] --set robustness.draws=5
    """
    numbers = _of_a_trained_net(params, experiment, set, "robustness", model, weights)
    from snnseg.report import robustness as curves
    from snnseg.tracking import measurements

    _summed_up(curves, measurements.log_robustness, numbers, model or weights, set)


@app.command()
def convert(experiment: Experiment, model: Model = None, weights: Weights = None,
            set: Set = None, params: Params = PARAMS) -> None:
    """Make a spiking net of a trained ANN twin (section 3).

    Nothing is trained: norms are folded, thresholds balanced on training pictures, and mIoU is scored after each number of time steps,
    from one pass; beside it the twin with activations of few bits (conversion.bits). All numbers are those it was trained with, but for the
    section conversion. With --set, --model or --weights the scores are shown only; without, they also become conversion.json and
    conversion.csv in data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg convert voc/ann_deeplab
      snnseg convert mnist_cifar/ann_fcn --set conversion.timesteps=[16,256] --set conversion.percentile=99.9
    """
    numbers = _of_a_trained_net(params, experiment, set, "conversion", model, weights)
    from snnseg.report import conversion
    from snnseg.tracking import measurements

    _summed_up(conversion, measurements.log_conversion, numbers, model or weights, set)


@app.command()
def timesteps(experiment: Experiment, model: Model = None, weights: Weights = None,
              set: Set = None, params: Params = PARAMS) -> None:
    """Score a spiking net at other numbers of time steps.

    A trained net is read after each of its steps, from one pass, and at time_steps.inference (figure 13); others are trained with
    time_steps.trained, each in a run folder of its own in data/run (figure 12). All numbers are those it was trained with, but for the
    section time_steps. With --set, --model or --weights the scores are shown only; without, they also become timesteps.json and timesteps.csv
    in data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg timesteps voc/spiking_deeplab
      snnseg timesteps mnist_cifar/spiking_fcn --set time_steps.inference=[2,8,32] --set time_steps.trained=[]
    """
    numbers = _of_a_trained_net(params, experiment, set, "time_steps", model, weights)
    from snnseg.report import timesteps as scores
    from snnseg.report import timesteps_table
    from snnseg.tracking import measurements, trainings

    found, written = _measured(scores, numbers, model or weights, set, trainings.trackers)
    if written:
        measurements.log_timesteps(numbers, found.summary, found.about)
    print(timesteps_table.lines(found.summary))
