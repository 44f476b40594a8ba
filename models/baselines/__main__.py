"""python -m tagbus.models.baselines NAME CORPUS --out FOLDER: see classical.py."""

import typer

from tagbus.models.baselines.classical import command

if __name__ == "__main__":
    typer.run(command)
