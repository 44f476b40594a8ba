"""`python -m tagbus.stream.cli`: the same as the console script."""

from tagbus.stream.cli import main

main()
