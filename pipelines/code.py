"""DVC stage `code`: the sources in; for each stage the modules it needs, with digests that comments and layout do not change, out."""
import typer

from snnseg import stage


def main() -> None:
    from pathlib import Path

    from snnseg import seal, sources
    from snnseg.sections import data_folder

    root = Path.cwd()
    for path in sorted(Path("pipelines").absolute().glob("*.py")):
        if path.stem != "code":
            seal.write_file(data_folder(root) / "code" / f"{path.stem}.txt", sources.told(path, root))


if __name__ == "__main__":
    typer.run(stage.guarded(main))
