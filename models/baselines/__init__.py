"""Classical taggers for comparison."""
