"""The LLM as a judge: content and tags in, a probability or unknown per tag out. Always optional."""

from tagbus.stream.llm.base import Answer, Asked, Charge, Judge, Judged, Meter, Question, Shot, Usage

__all__ = ["Answer", "Asked", "Charge", "Judge", "Judged", "Meter", "Question", "Shot", "Usage"]
