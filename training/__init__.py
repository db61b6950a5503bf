"""Training: student weights, samples, one file per stage."""
