"""The judge in the composition root: opening, budget, fitting, batches, synthesis."""
