"""What computes gradients and moves weights: one file for each way; the loop takes the first that supports a job."""
