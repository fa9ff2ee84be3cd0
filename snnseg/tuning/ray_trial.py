"""A trial as a Ray Tune trainable: a step is an epoch.

Actors are reused, so that torch is imported and kernels are compiled once a process, not once a trial. The training runs in a
thread and goes on with the next epoch while Ray decides about the last: only a stop costs the step that is being made.
"""
from __future__ import annotations

import json
import queue
import threading
import traceback
from pathlib import Path
from typing import Any

from ray import tune

from snnseg.errors import Interrupted, SnnsegError
from snnseg.sections import Config
from snnseg.tuning import ledger


class Worker(tune.Trainable):
    """Trains one trial after another. Its config is what `ray_sweep.job` makes: number, about, root, folder, threads."""

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(config["threads"])
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def execute(self, config: Config, folder: Path, tell: Any, stop: Any) -> dict[str, Any]:
        """What is done for a trial; tests plant faults here."""
        from snnseg.tuning import trial

        return trial.execute(config, folder, tell, stop)

    def _begin(self, job: dict[str, Any]) -> None:
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ended = threading.Event()
        heard, ended = self.heard, self.ended
        self.number, self.last = job["number"], {"epoch": 0}
        config, folder = Config.of(json.loads(job["about"]), Path(job["root"])), Path(job["folder"])

        def work() -> None:
            try:
                outcome = self.execute(config, folder, lambda epoch, miou: heard.put({"epoch": epoch, "miou": miou}), ended.is_set)
                heard.put({"outcome": outcome, "done": True})
            except Interrupted:
                heard.put({"done": True})
            except SnnsegError as e:        # of the store, the disk, the folder: any trial would meet it
                heard.put({"trouble": [str(e), e.exit_code], "done": True})
            except Exception as e:          # nobody has foreseen it; the sweep goes on
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
                heard.put({"outcome": {"state": ledger.FAILED, "why": f"{type(e).__name__}: {str(e)[:200]} ({folder / 'error.txt'})"}, "done": True})

        self.thread = threading.Thread(target=work, name=f"trial-{self.number}", daemon=True)
        self.thread.start()

    def step(self) -> dict[str, Any]:
        self.last = {"number": self.number} | self.last | self.heard.get()
        return self.last

    def cleanup(self) -> None:
        self.ended.set()
        self.thread.join()
