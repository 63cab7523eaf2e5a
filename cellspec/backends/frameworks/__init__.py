"""What PyTorch and JAX share, which take derivatives themselves: modules of functions, with a scan over time."""
