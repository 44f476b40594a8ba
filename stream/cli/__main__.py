"""`python -m tagbus.stream.cli`: the console script."""

from tagbus.stream.cli import main

main()
