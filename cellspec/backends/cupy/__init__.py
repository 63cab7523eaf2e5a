"""CuPy: standalone modules whose fused CUDA kernels and packed products run a cell on a GPU."""
