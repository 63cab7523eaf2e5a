"""What targets share that run a loop over units: the C family."""
