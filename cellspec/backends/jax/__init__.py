"""JAX: plain source to be transformed, differentiable through the derived backward pass."""
