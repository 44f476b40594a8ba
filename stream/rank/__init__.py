"""The ranker: candidates, their features, trees over these, and the cross-encoder that rescores the best."""
