"""A PyTorch module over NumPy arrays, with the gradients that autograd takes."""

from __future__ import annotations

from typing import Any

import torch

from cellspec.backends.frameworks.bridge import Bridge, flat, mapped


class TorchBridge(Bridge):
    """The module on the CPU."""

    def array(self, value: Any) -> Any:
        return torch.tensor(value)

    def numpy(self, value: Any) -> Any:
        return value.detach().numpy()

    def pulled(self, arguments: tuple[Any, ...], options: dict[str, Any], cotangents: Any) -> Any:
        leaves: list[Any] = []

        def leaf(tensor: Any) -> Any:
            leaves.append(tensor.requires_grad_())
            return tensor

        y, final = self.run(*mapped(leaf, arguments), **options)
        pairs = [(r, d) for r, d in zip(flat((y, final)), flat(cotangents), strict=True) if r.requires_grad]
        results, given = zip(*pairs, strict=True)
        found = torch.autograd.grad(results, leaves, given, allow_unused=True)
        grads = iter([torch.zeros_like(at) if one is None else one for one, at in zip(found, leaves, strict=True)])
        return mapped(lambda _: next(grads), arguments)
