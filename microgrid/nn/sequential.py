"""Sequential: one layer after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from microgrid.errors import OperandTypeError
from microgrid.nn.module import Module
from microgrid.tensor import Tensor


class Sequential(Module):
    """Layers, each called on what the one before gives; functions such as `mg.tanh` serve as well.

    Examples
    --------
    >>> net = mg.nn.Sequential(mg.nn.Linear(3, 8, rng=0), mg.tanh, mg.nn.Linear(8, 2, rng=1))
    >>> net(np.ones((5, 3))).shape, list(net.state_dict())
    ((5, 2), ['linear_1.W', 'linear_1.b', 'linear_2.W', 'linear_2.b'])
    """

    def __init__(self, *layers: Callable[[Tensor], Tensor]) -> None:
        for layer in layers:
            if not callable(layer) or isinstance(layer, type):
                hint = ": make one, as in nn.Linear(3, 2)" if isinstance(layer, type) else ""
                raise OperandTypeError(f"nn.Sequential takes layers and functions, not {layer!r:.60}{hint}")
        self.named(None)  # its layers are told apart by their kind, as in lstm.W, linear.W
        object.__setattr__(self, "layers", layers)
        modules = list(dict.fromkeys(layer for layer in layers if isinstance(layer, Module)))
        kinds = [module.scope.name for module in modules]
        for number, module in enumerate(modules):
            kind = kinds[number]
            twins = f"{kind}_{kinds[: number + 1].count(kind)}" if kind and kinds.count(kind) > 1 else kind
            module.belong_to(self, twins)

    layers: tuple[Callable[[Tensor], Tensor], ...]

    def children(self) -> Iterator[tuple[str, Module]]:
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Module):
                yield str(number), layer

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self.layers:
            x = layer(x)
        return x

    def __iter__(self) -> Iterator[Callable[[Tensor], Tensor]]:
        return iter(self.layers)

    def __getitem__(self, number: int) -> Callable[[Tensor], Tensor]:
        return self.layers[number]

    def __len__(self) -> int:
        return len(self.layers)
