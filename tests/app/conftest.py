"""Reuses the fixtures of the commands' tests."""

from tests.cli.conftest import cutting, tagbus

__all__ = ["cutting", "tagbus"]
