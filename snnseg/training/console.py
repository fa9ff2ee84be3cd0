"""Progress for a person: one live line on a terminal, single plain lines elsewhere. Speaks on stderr."""
from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from snnseg.training.report import Numbers

PLAIN_EVERY_S = 15.0    # seconds between plain lines within an epoch


def duration(seconds: float) -> str:
    """75 -> 1:15, 4000 -> 1:06:40."""
    minutes, s = divmod(max(0, round(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class Console:
    """A reporter that shows epoch, loss, mIoU, samples/s and the time left."""

    def __init__(self, title: str, samples: int):
        self.title, self.samples = title, samples       # samples of one epoch
        self.terminal = Terminal(stderr=True)
        self.bar: Progress | None = None
        self.started = time.monotonic()

    def begin(self, step: int, steps: int, epochs: int) -> None:
        """Also once more, where workers were lost and the training goes on."""
        if self.bar:
            self.bar.stop()
        self.first, self.steps, self.epochs = step, steps, epochs
        self.started = self.told = time.monotonic()
        if step == steps:
            self._say(f"{self.title}: finished before, {steps} steps")
        elif step:
            self._say(f"{self.title}: goes on from step {step} of {steps}")
        if self.terminal.is_terminal and step < steps:
            self.bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                                TextColumn("{task.fields[numbers]}"), console=self.terminal)
            self.task = self.bar.add_task(self.title, total=steps, completed=step, numbers="")
            self.bar.start()

    def numbers(self, step: int, numbers: Numbers) -> None:
        now = time.monotonic()
        rate = (step - self.first) / max(now - self.started, 1e-9)
        whose = "test" if "test/miou" in numbers else "train"
        miou = numbers[f"{whose}/miou"]
        text = (f"epoch {numbers['epoch'] + 1}/{self.epochs}  loss {numbers['train/epoch_loss']:.4f}  {whose} mIoU {miou:.2f}  "
                f"{rate * self.samples * self.epochs / self.steps:.0f} samples/s  {duration((self.steps - step) / rate)} left")
        if self.bar:
            self.bar.update(self.task, completed=step, numbers=text)
        if "test/miou" in numbers or (not self.bar and now - self.told >= PLAIN_EVERY_S):
            self.told = now
            self._say(f"{self.title}: step {step}/{self.steps}  {text}")

    def saved(self, step: int, checkpoint: Path) -> None:
        pass

    def end(self, status: str) -> None:
        if self.bar:
            self.bar.stop()
        self._say(f"{self.title}: {status} after {duration(time.monotonic() - self.started)}")

    def _say(self, text: str) -> None:
        (self.bar.console if self.bar else self.terminal).print(text, soft_wrap=True, highlight=False)
