"""What targets share whose statements are functions of whole arrays: NumPy, PyTorch, JAX."""
