"""The tagger: contents in, tags or failures out, by a list of stages over one `Work` a content."""

from tagbus.stream.tagger.tagger import DECIDED, Explained, Failure, Features, Pipeline, Tagger, Taxonomy

__all__ = ["DECIDED", "Explained", "Failure", "Features", "Pipeline", "Tagger", "Taxonomy"]
