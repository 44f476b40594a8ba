"""What tagbus says of itself: metrics, traces and logs, each one list.

The metrics are reached as `telemetry.NAME`.
"""

from tagbus.stream.telemetry.metrics import *  # noqa: F403
