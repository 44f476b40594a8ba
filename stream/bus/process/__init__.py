"""Contents to tags, withdrawals and dead letters: the loop thread."""
