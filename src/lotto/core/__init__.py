"""What knows nothing of learning: errors, files, named randomness, arithmetic on named tensors, fingerprints."""
