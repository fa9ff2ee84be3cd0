"""What malloc is told: memory stays with the process, or goes back with each large tensor."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GNU = bool(getattr(os, "confstr_names", {}).get("CS_GNU_LIBC_VERSION"))
GROWN = """
import torch
from snnseg import memory
memory.{mode}()
before = memory.resident()
x = torch.ones(2**24)
held = memory.resident()
del x
print((held - before) >> 20, (memory.resident() - before) >> 20)
"""


@pytest.mark.skipif(not GNU, reason="needs GNU's C library")
@pytest.mark.parametrize(("mode", "stays"), [("keep_freed", True), ("give_back", False)])
def test_a_large_tensors_memory_stays_or_goes(mode, stays, environment):
    done = subprocess.run([sys.executable, "-c", GROWN.format(mode=mode)], capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    held, left = map(int, done.stdout.split())
    assert held >= 60 and (left >= 60 if stays else left < 10)
