"""How far a long work is, on stderr: bar, rate and time left on a terminal, nothing but the end elsewhere."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from snnseg.data import recipe


@contextmanager
def shown(title: str) -> Iterator[Callable[[recipe.Progress], None]]:
    """A function to tell progress to; each kind of thing that is counted gets its own line."""
    tasks: dict[str, tuple[int, int]] = {}          # the bar of each kind, and where it began
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                  TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        def tell(now: recipe.Progress) -> None:
            if now.what not in tasks:
                tasks[now.what] = bars.add_task(f"{title}: {now.what}", total=now.total, completed=now.done, rate=""), now.done
            task, first = tasks[now.what]
            rate = (now.done - first) / max(bars.tasks[task].elapsed or 0, 1e-9)
            bars.update(task, completed=now.done, total=now.total, rate=f"{rate:,.0f}/s" if now.done > first else "")

        yield tell
