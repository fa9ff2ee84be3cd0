"""DVC stage `prepare`: raw pictures in, a sealed store out."""
from snnseg import stage
from snnseg.config import load
from snnseg.data import prepare


def main() -> None:
    for _ in prepare.prepare(load()):
        pass


if __name__ == "__main__":
    stage.run(main)
