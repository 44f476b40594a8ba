"""Telemetry: metrics, traces and logs, each defined in one list.

Metrics are accessible as `telemetry.NAME`.
"""

from tagbus.stream.telemetry.metrics import *  # noqa: F403
