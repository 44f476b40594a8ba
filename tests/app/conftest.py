"""The fixtures of the commands' tests serve here too."""

from tests.cli.conftest import cutting, tagbus

__all__ = ["cutting", "tagbus"]
