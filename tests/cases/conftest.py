"""The fixtures of the commands' tests serve here too."""

from tests.cli.conftest import tagbus

__all__ = ["tagbus"]
