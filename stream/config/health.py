"""Settings of the health endpoints."""

from pydantic import Field

from tagbus.stream.config.base.section import Section


class HealthSettings(Section):
    """/metrics, /livez and /readyz."""

    host: str = "127.0.0.1"
    port: int = Field(8780, ge=0, le=65535, description="0: any free port, which is logged")
    # A commit that begins as the brokers vanish blocks for up to kafka.session_seconds, 45.
    stall_seconds: float = Field(60.0, gt=0, description="not live if the poll loop is stalled for this long")
