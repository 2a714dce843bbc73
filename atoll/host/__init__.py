"""What every process takes from its machine: configuration, logging, clock and randomness."""
