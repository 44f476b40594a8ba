"""The ranker: candidates, their features, trees over them, and the cross-encoder that reads the best."""
