"""The ranker: candidates, their features, trees over them, and the cross-encoder that rescores the best."""
