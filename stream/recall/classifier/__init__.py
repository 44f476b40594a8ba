"""What recallers share whose model answers with tag numbers and probabilities, in the process or on Triton."""
