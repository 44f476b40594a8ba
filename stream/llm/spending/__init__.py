"""Spending limits of the judge: budget, prices, rates, breaker, cache."""
