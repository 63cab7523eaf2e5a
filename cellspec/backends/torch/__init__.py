"""PyTorch: plain source that runs wherever tensors do, differentiable through the derived backward pass."""
