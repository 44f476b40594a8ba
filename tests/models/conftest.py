"""The tests of models/ need the extra `train`: without torch they are skipped, and fail when CI=true."""

import importlib.util
import os

if os.environ.get("CI") != "true" and importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py", "*/test_*.py"]
