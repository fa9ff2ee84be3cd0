"""Raw files to a sealed store, shard by shard on all cores or a cluster, going on where it was ended.

A task is one shard; it depends on the config and the raw files alone, so that the store is byte-identical for any number of
processes. Finished shards lie in `data/store/.work-<name>/`, each with a mark that tells which files it was made from; the
whole is sealed and renamed at the end.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnseg import lock, provenance, seal
from snnseg.data import parallel, store
from snnseg.data.recipe import Part, Progress, Recipe, state
from snnseg.sections import Config

Tell = Callable[[Progress], None]
CODE = sorted(Path(__file__).parent.glob("*.py"))       # what makes a store; changed code goes on with no shard of the old
LISTED = 200        # files left out that a store names; all of them are counted


@dataclass(frozen=True)
class Task:
    """One shard of one split, written below `folder`; `layout` is a digest of the numbers and the code of the store."""

    part: Part
    folder: Path
    split: str
    start: int
    stop: int
    layout: str
    skip_bad: bool

    @property
    def mark(self) -> Path:
        return self.folder / "done" / f"{self.split}-{self.start}.json"

    def key(self) -> str:
        """Of all that the shard depends on."""
        told = [self.layout, self.split, self.start, self.stop, *state(self.part.files())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def run_task(task: Task) -> int:
    """Make and write one shard; return the number of its items. Files that had to be left out are in its mark."""
    key = task.key()
    items, bad = task.part.make(task.skip_bad)
    task.mark.unlink(missing_ok=True)
    with seal.no_space_named(task.folder):
        store.write(task.folder, task.split, task.start, items)
        for file in task.folder.glob(f"{task.split}.zarr/*/c/{task.start // store.SHARD}/**/*"):
            if file.is_file():
                seal.fsync(file)
    seal.write_file(task.mark, json.dumps({"key": key, "bad": bad}))
    return task.stop - task.start


def _bad(task: Task) -> dict[str, str] | None:
    """The bad files of a finished shard; None if it has to be made."""
    try:
        mark = json.loads(task.mark.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return mark["bad"] if mark.get("key") == task.key() and (task.skip_bad or not mark["bad"]) else None


def _lay_out(work: Path, recipe: Recipe, config: Config) -> str:
    """Empty splits for the recipe, unless they are there from an attempt before that wanted the same; their digest."""
    told = json.dumps([config.store_params, recipe.counts, recipe.arrays, store.CHUNK, store.SHARD, provenance.code_digest(CODE)])
    digest = hashlib.sha256(told.encode()).hexdigest()
    layout = work / "layout.json"
    if layout.exists() and layout.read_text(encoding="utf-8") == told and all((work / f"{split}.zarr").is_dir() for split in recipe.counts):
        return digest
    layout.unlink(missing_ok=True)
    for left in (*work.glob("*.zarr"), work / "done"):
        shutil.rmtree(left, ignore_errors=True)
    for split, count in recipe.counts.items():
        store.create(work, split, count, recipe.arrays)
    seal.write_file(layout, told)
    return digest


def _about(config: Config, recipe: Recipe, split: str) -> dict[str, Any]:
    return {"dataset": config.data.dataset, "protocol": config.protocol, "source": config.data.source, "split": split,
            "classes": list(recipe.classes), "palette": recipe.palette, "params": config.store_params,
            "found": recipe.found.get(split, recipe.counts[split]), "official": recipe.official.get(split), "partial": recipe.partial,
            "left_out": len(recipe.bad), "left_out_files": dict(list(recipe.left_out.items())[:LISTED]), **recipe.about.get(split, {})}


def _recipe(config: Config, work: Path, left_out: dict[str, str], tell: Tell) -> Recipe:
    """The recipe of the data set, with only its own code loaded; what comes before the shards is done here."""
    if config.data.dataset == "mnist_cifar":
        from snnseg.data import mnist_cifar

        return mnist_cifar.recipe(config)
    if config.data.dataset == "voc":
        from snnseg.data import voc_recipe

        return voc_recipe.recipe(config, work, left_out)
    from snnseg.data import ddd17_recipe

    return ddd17_recipe.recipe(config, work, left_out, tell)


def _shards(recipe: Recipe, config: Config, work: Path, tell: Tell) -> dict[str, str]:
    """Make the shards that are missing; return the files that had to be left out."""
    layout = _lay_out(work, recipe, config)
    tasks = [Task(recipe.part(split, *span), work, split, *span, layout, config.data.skip_bad)
             for split, count in recipe.counts.items() for span in store.shards(count)]
    waiting = [task for task in tasks if _bad(task) is None]
    total = sum(recipe.counts.values())
    done = total - sum(task.stop - task.start for task in waiting)
    tell(Progress(recipe.what, done, total))
    for made in parallel.results(run_task, waiting, config):
        done += made
        tell(Progress(recipe.what, done, total))
    return {name: fact for task in tasks for name, fact in (_bad(task) or {}).items()}


def prepare(config: Config, tell: Tell = lambda progress: None) -> Recipe:
    """Make the store of `config` anew and return what was made. Ended at any moment, the same call goes on with what is missing.

    Raises DataMissing, DataError, Busy, NoSpace, ClusterError.
    """
    work = config.store.with_name(f".work-{config.store.name}")
    with lock.held(config.store, "preparing"):
        with seal.no_space_named(work):
            work.mkdir(parents=True, exist_ok=True)
            seal.sweep(work)
        left_out: dict[str, str] = {}
        while True:
            recipe = _recipe(config, work, left_out, tell)
            bad = _shards(recipe, config, work, tell)
            if bad.keys() <= left_out.keys():
                break
            left_out |= bad         # and again without them, from the start: places of items move up
        store.sweep(work)
        recipe = replace(recipe, bad=left_out | recipe.bad)
        for split in recipe.counts:
            store.describe(work, split, _about(config, recipe, split))
        (work / "layout.json").unlink()     # from here on the work folder is no longer whole
        with seal.publish(config.store) as partial:
            for split in recipe.counts:
                os.rename(work / f"{split}.zarr", partial / f"{split}.zarr")
        shutil.rmtree(work)
    return recipe
