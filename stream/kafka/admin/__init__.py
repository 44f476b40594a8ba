"""Topic administration: the required layout, the existing topics, and transactions that block readers."""
