"""`tagbus feedback`: the joiner of people's decisions, and the calibration that follows them."""
