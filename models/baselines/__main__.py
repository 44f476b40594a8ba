"""python -m tagbus.models.baselines NAME CORPUS --out FOLDER: see compare.py."""

import typer

from tagbus.models.baselines.compare import command

if __name__ == "__main__":
    typer.run(command)
