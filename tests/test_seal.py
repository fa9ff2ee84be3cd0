"""Seals: a folder is whole, unchanged and complete, or it is refused; a failed writing leaves nothing behind."""
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from snnseg import seal
from snnseg.errors import NoSpace, StoreAltered, StoreMissing

ROOT = Path(__file__).resolve().parent.parent
FILES = {"a.txt": b"first\n", "deep/er/b.bin": bytes(range(256)), "empty": b""}


def fill(folder, files=FILES):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path):
    with seal.publish(tmp_path / "store") as partial:
        fill(partial)
    return tmp_path / "store"


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_round_trip(folder):
    digest = seal.verify(folder, "")
    assert seal.is_sealed(folder) and names(folder.parent) == ["store"]
    assert {k: v for k, v in content(folder).items() if k != "seal.json"} == FILES
    told = json.loads((folder / "seal.json").read_text())
    assert told["digest"] == digest and told["schema"] == 1
    # sha256 of nothing and of "first\n", as sha256sum prints them
    assert told["files"]["empty"] == {"size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    assert told["files"]["a.txt"] == {"size": 6, "sha256": "b640e840b19d378660b32fb51ae18d67dccb4a8596a29e7bd72c1b2ae5928f41"}
    assert told["files"].keys() == FILES.keys()


def test_the_digest_follows_from_names_and_bytes(tmp_path, folder):
    def digest_of(files):
        fill(tmp_path / "other", files)
        found = seal.seal(tmp_path / "other")
        shutil.rmtree(tmp_path / "other")
        return found

    assert digest_of(FILES) == digest_of(dict(reversed(FILES.items()))) == seal.verify(folder, "")
    renamed = {("c" if name == "empty" else name): data for name, data in FILES.items()}
    digests = {digest_of(FILES), digest_of(FILES | {"a.txt": b"First\n"}), digest_of(FILES | {"more": b""}), digest_of(renamed)}
    assert len(digests) == 4


def change(name, function):
    def alter(folder):
        (folder / name).write_bytes(function((folder / name).read_bytes()))
    return alter


def rehashed(folder):
    """The work of somebody who changes a file and its line in the seal, but not the seal's own digest."""
    fill(folder, {"a.txt": b"fIrst\n"})
    told = json.loads((folder / "seal.json").read_text())
    told["files"]["a.txt"]["sha256"] = seal.file_sha256(folder / "a.txt")
    (folder / "seal.json").write_text(json.dumps(told, sort_keys=True, indent=1) + "\n")


def without_line(folder):
    told = json.loads((folder / "seal.json").read_text())
    del told["files"]["empty"]
    (folder / "seal.json").write_text(json.dumps(told, sort_keys=True, indent=1) + "\n")
    (folder / "empty").unlink()


def replaced_by(name, link_to=None):
    def alter(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(link_to) if link_to else (folder / name).mkdir()
    return alter


ALTERATIONS = [
    pytest.param("a.txt", change("a.txt", lambda b: b"firsu\n"), id="changed byte"),
    pytest.param("deep/er/b.bin", change("deep/er/b.bin", lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:]), id="changed bit"),
    pytest.param("deep/er/b.bin", change("deep/er/b.bin", lambda b: b[:-1]), id="truncated"),
    pytest.param("a.txt", change("a.txt", lambda b: b""), id="emptied"),
    pytest.param("empty", change("empty", lambda b: b"\0"), id="byte added"),
    pytest.param("a.txt is missing", lambda f: (f / "a.txt").unlink(), id="deleted"),
    pytest.param("deep/er/b.bin is missing", lambda f: shutil.rmtree(f / "deep"), id="deleted folder"),
    pytest.param("a.txt is missing", lambda f: (f / "a.txt").rename(f / "z.txt"), id="renamed"),
    pytest.param("deep/new does not belong", lambda f: fill(f, {"deep/new": b""}), id="foreign file"),
    pytest.param("deep/seal.json does not belong", lambda f: fill(f, {"deep/seal.json": b"{}"}), id="foreign seal"),
    pytest.param("link does not belong", lambda f: (f / "link").symlink_to("nowhere"), id="foreign dead link"),
    pytest.param("seal.json", rehashed, id="file and its hash"),
    pytest.param("seal.json", without_line, id="file and its line"),
    pytest.param("seal.json", change("seal.json", lambda b: b.replace(b'"schema": 1', b'"schema": 2')), id="schema"),
    pytest.param("seal.json", change("seal.json", lambda b: b + b" "), id="seal with a space at the end"),
    pytest.param("seal.json", change("seal.json", lambda b: b.replace(b": ", b":  ", 1)), id="seal with a space within"),
    pytest.param("seal.json", change("seal.json", lambda b: b.rstrip()), id="seal without its last newline"),
    pytest.param("seal.json", change("seal.json", lambda b: b[:-10]), id="seal truncated"),
    pytest.param("seal.json", change("seal.json", lambda b: b""), id="seal emptied"),
    pytest.param("seal.json", change("seal.json", lambda b: b"\xff" + b[1:]), id="seal not UTF-8"),
    pytest.param("seal.json", change("seal.json", lambda b: b'{"schema": 1}'), id="seal of nothing"),
    pytest.param("seal.json", change("seal.json", lambda b: b"[]"), id="seal is a list"),
    pytest.param("a.txt is missing", replaced_by("a.txt"), id="folder instead of a file"),
    pytest.param("a.txt", replaced_by("a.txt", "nowhere"), id="dead link instead of a file"),
    pytest.param("link", lambda f: (f / "link").symlink_to(f.parent), id="foreign link to a folder"),
    pytest.param("seal.json", change("seal.json", lambda b: b"[" * 100_000), id="seal nested too deep"),
    pytest.param("seal.json", change("seal.json", lambda b: b.replace(b"\n", b"\r\n")), id="seal with CRLF"),
]


@pytest.mark.parametrize(("told", "alter"), ALTERATIONS)
def test_every_alteration_is_refused(folder, told, alter):
    alter(folder)
    with pytest.raises(StoreAltered) as e:
        seal.verify(folder, "Make it again")
    assert told in str(e.value) and str(folder) in str(e.value) and str(e.value).endswith("Make it again")


def test_every_single_bit_of_the_seal_counts(folder):
    original = (folder / "seal.json").read_bytes()
    for place in range(len(original)):
        flipped = bytearray(original)
        flipped[place] ^= 1 << place % 8
        (folder / "seal.json").write_bytes(flipped)
        with pytest.raises(StoreAltered):
            seal.read_seal(folder, "")
    (folder / "seal.json").write_bytes(original)
    seal.verify(folder, "")


def test_schema_of_another_version_is_refused(folder):
    """Sealed correctly, but by a later version."""
    told = json.loads((folder / "seal.json").read_text()) | {"schema": 2}
    told["digest"] = seal._digest(told)
    (folder / "seal.json").write_text(seal._text(told))
    with pytest.raises(StoreAltered, match="schema 2, this version reads schema 1"):
        seal.verify(folder, "")


def test_missing_and_unfinished(folder, tmp_path):
    with pytest.raises(StoreMissing, match="not found"):
        seal.verify(tmp_path / "nothing", "")
    (folder / "seal.json").unlink()
    assert not seal.is_sealed(folder)
    with pytest.raises(StoreMissing, match="never finished"):
        seal.verify(folder, "")
    with pytest.raises(FileNotFoundError):      # the built-in, too
        seal.read_seal(tmp_path / "nothing", "")


def test_without_contents_sizes_and_names_are_still_checked(folder):
    change("a.txt", lambda b: b"FIRST\n")(folder)
    seal.verify(folder, "", contents=False)
    with pytest.raises(StoreAltered):
        seal.verify(folder, "")
    change("a.txt", lambda b: b"longer\n")(folder)
    with pytest.raises(StoreAltered, match=r"a\.txt"):
        seal.verify(folder, "", contents=False)


# ------------------------------------------------------------------------------------------------ publish

def test_publish_replaces_the_former_folder(folder):
    former = seal.verify(folder, "")
    with seal.publish(folder) as partial:
        assert content(folder)["a.txt"] == FILES["a.txt"]        # still there while the next one is made
        assert partial.parent == folder.parent and partial.name.startswith(".partial-")
        fill(partial, {"new": b"1"})
    assert names(folder) == ["new", "seal.json"] and names(folder.parent) == ["store"]
    assert seal.verify(folder, "") != former


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_publish_removes_its_part_and_keeps_the_former(folder, error):
    before = content(folder)
    with pytest.raises(error), seal.publish(folder) as partial:
        fill(partial, {"new/deep": b"1"})
        raise error
    assert names(folder.parent) == ["store"]
    assert content(folder) == before
    seal.verify(folder, "")


def test_publish_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(RuntimeError), seal.publish(tmp_path / "in" / "store") as partial:
        fill(partial)
        raise RuntimeError
    assert names(tmp_path / "in") == []


def test_publish_keeps_the_former_when_the_last_rename_fails(folder, monkeypatch):
    """Or when Ctrl-C comes between the two renames; put back or left beside, its bytes must still be there."""
    before, rename = content(folder), os.rename

    def failing(source, target):
        if Path(target) == folder and not str(source).endswith("-former"):
            raise PermissionError(13, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(PermissionError), seal.publish(folder) as partial:
        fill(partial, {"new": b"1"})
    assert before in [content(p) for p in folder.parent.iterdir()]


def test_write_file_replaces_in_one_step(tmp_path, monkeypatch):
    place = tmp_path / "deep" / "told.json"
    seal.write_file(place, "ä\n")
    assert place.read_bytes() == b"\xc3\xa4\n"
    seal.write_file(place, b"\0")
    assert place.read_bytes() == b"\0" and names(place.parent) == ["told.json"]

    def failing(*_):
        raise PermissionError(13, "no")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PermissionError):
        seal.write_file(place, b"new")
    assert place.read_bytes() == b"\0" and names(place.parent) == ["told.json"]


def test_sweep_removes_what_was_left_within_and_nothing_else(folder):
    fill(folder.parent, {".partial-1-x/a/b": b"1", ".partial-2-y.json": b"2", "keep/.partial-3": b"3"})
    seal.sweep(folder.parent)
    assert names(folder.parent) == ["keep", "store"] and names(folder.parent / "keep") == [".partial-3"]
    seal.verify(folder, "")


def test_what_is_being_removed_is_out_of_the_way_at_once_and_swept(folder, monkeypatch):
    def ended(path):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", ended)
        seal.remove(folder)
    assert not folder.exists() and len(names(folder.parent)) == 1
    seal.sweep(folder.parent)
    assert names(folder.parent) == []


def test_sweep_removes_what_was_left_beside_under_its_name(folder):
    fill(folder.parent, {".partial-01234567-store/a": b"1", ".partial-01234567-other/a": b"1"})
    seal.sweep(folder)
    assert names(folder.parent) == [".partial-01234567-other", "store"]


@pytest.mark.parametrize("other", ["store_2", "my-store"])
def test_sweep_leaves_what_another_folder_is_made_from(folder, other):
    with seal.publish(folder.with_name(other)) as partial:
        seal.sweep(folder)
        assert partial.exists()


def test_sweep_gives_back_a_former_folder_that_is_the_only_one(folder):
    before = content(folder)
    folder.rename(folder.with_name(".partial-01234567-store-former"))
    seal.sweep(folder)
    assert before in [content(p) for p in folder.parent.iterdir()]


# ------------------------------------------------------------------------------------------------ no space

def test_only_no_space_is_named_so(tmp_path):
    with pytest.raises(PermissionError), seal.no_space_named(tmp_path):
        raise PermissionError(13, "no")
    with pytest.raises(NoSpace, match=r"deep: no space left to write \(\d+\.\d MiB free\)") as e:
        with seal.no_space_named(tmp_path / "not" / "deep"):
            raise OSError(28, "No space left on device")
    assert e.value.exit_code == 6 and isinstance(e.value.__cause__, OSError)


LIMITED = """
    import resource, signal, sys
    from pathlib import Path
    from snnseg import seal
    from snnseg.errors import NoSpace

    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    place = Path(sys.argv[1])
    for writing in ("publish", "write_file"):
        try:
            if writing == "publish":
                with seal.publish(place) as partial:
                    (partial / "small").write_bytes(b"s" * 4096)
                    print("small is written")
                    (partial / "big").write_bytes(b"b" * 4097)
            else:
                seal.write_file(place / "a.txt", b"b" * 4097)
        except NoSpace as e:
            print(writing, e)
"""


def test_a_file_size_limit_is_no_space_and_harms_nothing(folder):
    before = content(folder)
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(LIMITED), folder], cwd=ROOT, timeout=60,
                         env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert out.returncode == 0, out.stderr
    written, *told = out.stdout.splitlines()
    assert written == "small is written"
    assert [line.split(" (")[0] for line in told] == [f"publish {folder}: no space left to write",
                                                      f"write_file {folder / 'a.txt'}: no space left to write"]
    assert names(folder.parent) == ["store"] and content(folder) == before
    seal.verify(folder, "")
