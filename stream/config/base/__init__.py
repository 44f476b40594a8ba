"""What every group of settings is made of."""
