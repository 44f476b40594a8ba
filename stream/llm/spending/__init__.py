"""What the judge may cost: budget, prices, rates, breaker, cache."""
