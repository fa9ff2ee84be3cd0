"""Which files a module needs: read from its text, at any depth, and told apart by what they say, not how they look."""
from pathlib import Path

import pytest

from snnseg import sources


@pytest.fixture
def root(tmp_path) -> Path:
    files = {
        "stage.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from snnseg import typed\n\n\ndef main():\n    from snnseg.room import table\n",
        "snnseg/__init__.py": "", "snnseg/typed.py": "", "snnseg/aside.py": "",
        "snnseg/room/__init__.py": "", "snnseg/room/table.py": "import numpy\n\nimport snnseg.room.deep\n\nFILE = 'table.csv'\n",
        "snnseg/room/deep.py": "from snnseg import room\n", "snnseg/room/table.csv": "1,2\n", "snnseg/room/other.csv": "3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(told: str) -> list[str]:
    return [line.split("  ")[1] for line in told.splitlines()]


def test_imports_at_any_depth_and_files_that_are_named(root):
    assert names(sources.told(root / "stage.py", root)) == ["snnseg/__init__.py", "snnseg/room/__init__.py", "snnseg/room/deep.py", "snnseg/room/table.csv",
                                                            "snnseg/room/table.py", "stage.py"]


@pytest.mark.parametrize(("name", "text", "same"), [
    ("snnseg/room/deep.py", "# why\nfrom snnseg import (\n    room,\n)\n", True),
    ("snnseg/room/deep.py", "from snnseg import room\nN = 1\n", False),
    ("snnseg/room/table.csv", "1,3\n", False),
    ("snnseg/room/other.csv", "4\n", True),
    ("snnseg/aside.py", "N = 1\n", True),
])
def test_what_changes_the_list(root, name, text, same, tmp_path_factory):
    before = sources.told(root / "stage.py", root)
    sources._read.cache_clear()         # within a process files are read once
    (root / name).write_text(text)
    assert (sources.told(root / "stage.py", root) == before) == same
