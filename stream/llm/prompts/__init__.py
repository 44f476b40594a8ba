"""Prompts: versioned templates, and the fenced text that they are rendered from."""

from tagbus.stream.llm.prompts.length import tokens
from tagbus.stream.llm.prompts.prompt import YES_NO, Prompts, Rendered, Sample, Subject

__all__ = ["YES_NO", "Prompts", "Rendered", "Sample", "Subject", "tokens"]
