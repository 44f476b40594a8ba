"""`tagbus evaluate-models`: baselines and trained models in one table."""
