"""MLflow's tables made once: a database that a test begins is a copy of an empty one, as making it anew takes two to four seconds of a core."""
import functools
import os
import shutil
import tempfile
from pathlib import Path

import filelock

from snnseg.tracking import database

opened = database.opened


@functools.cache
def empty() -> Path:
    """A database of this version of MLflow without an experiment of ours, in the folder of pytest's cache."""
    import mlflow

    kept = Path(__file__).resolve().parent.parent / ".pytest_cache" / "mlflow" / f"{mlflow.__version__}.db"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(kept.with_suffix(".lock"), timeout=300):
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                mlflow.MlflowClient(f"sqlite:///{folder}/made.db").search_experiments()
                shutil.copy(Path(folder, "made.db"), kept.with_suffix(".partial"))
            os.replace(kept.with_suffix(".partial"), kept)
    return kept


def copied(root: Path, experiment: str):
    """In place of `database.opened`."""
    place = database.data_folder(root) / "mlflow" / "mlflow.db"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(place.parent / "lock", timeout=60):
            if not place.exists():
                shutil.copy(empty(), place)
    return opened(root, experiment)


def once() -> None:
    """For this process and its forks."""
    database.opened = copied
