"""Module: a part of a network with parameters of its own, and modules inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from microgrid.errors import OperandError, OperandTypeError, UnknownNameError, did_you_mean
from microgrid.leaves import Parameter
from microgrid.names import unique_names
from microgrid.scope import Scope
from microgrid.tensor import ArrayLike, Name, Tensor, constant

TakeTorch = Callable[[str, tuple[int, ...]], np.ndarray[Any, Any]]
"""(key, shape) → the array of that key in a state dict of PyTorch, checked."""


class Module:
    """A part of a network: set parameters and other modules as attributes, and say in `forward` what it computes.

    What is set as an attribute is named after it: a module `self.encoder` with a parameter `self.W` has
    "encoder.W". Called on tensors, it records its operations; parameters are shared between calls.

    Examples
    --------
    >>> class Readout(mg.nn.Module):
    ...     def __init__(self, inputs, outputs):
    ...         self.hidden = mg.nn.Linear(inputs, 8, rng=0)
    ...         self.out = mg.nn.Linear(8, outputs, rng=1)
    ...     def forward(self, x):
    ...         return self.out(mg.tanh(self.hidden(x)))
    >>> net = Readout(3, 2)
    >>> net(np.ones((5, 3))).shape
    (5, 2)
    >>> list(net.state_dict())
    ['hidden.W', 'hidden.b', 'out.W', 'out.b']
    """

    scope: Scope

    called: ClassVar[str | None] = None

    def __init_subclass__(cls, called: str | None = None, **settings: Any) -> None:
        """`class Attention(nn.Module, called="attention")` names modules that are no attribute of another."""
        super().__init_subclass__(**settings)
        if called is not None:
            cls.called = called

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        module = super().__new__(cls)
        object.__setattr__(module, "scope", Scope(cls.called))
        return module

    def __setattr__(self, name: str, value: Any) -> None:
        if callable(getattr(Module, name, None)) or name == "scope":
            raise OperandError(f"a module needs its own {name!r}: call the attribute otherwise")
        for key, part in parts_in(name, value):
            if isinstance(part, Module):
                part.belong_to(self, key)
            else:
                part.scope = part.scope or self.scope
                if part._name is None:
                    part._name = Name(key, None, self.scope)
                elif part._name.scope is None:
                    part._name = part._name._replace(scope=self.scope)
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        hint = f". {WITHOUT_MODES}" if name in ("train", "eval") else ""
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}{hint}")

    def belong_to(self, parent: Module, name: str | None) -> None:
        """Be a part of `parent`, under a name of its own unless it has been part of another before."""
        around = self.scope.parent
        if (around is None or around is parent.scope.parent) and self.scope not in parent.scope.path:
            self.scope.parent = parent.scope
            if self.scope.name == self.called:
                self.scope.name = name

    def named(self, name: str | None) -> Self:
        """Give the module a name, which its parameters and states carry; returns the module.

        >>> mg.nn.Linear(3, 2).named("readout").W.name
        'readout.W'
        """
        self.scope.name = Scope(name).name
        return self

    def __call__(self, *inputs: ArrayLike, **settings: Any) -> Tensor:
        with self.scope:
            return self.forward(*map(constant, inputs), **settings)

    def forward(self, *inputs: Tensor, **settings: Any) -> Tensor:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward: say in it what the module computes")

    # --- what is inside ---

    def children(self) -> Iterator[tuple[str, Module]]:
        """The modules set as attributes, with the attributes' names."""
        for name, value in vars(self).items():
            yield from ((key, part) for key, part in parts_in(name, value) if isinstance(part, Module))

    def own_parameters(self) -> list[Parameter]:
        """The parameters set as attributes of the module itself."""
        return [
            part
            for name, value in vars(self).items()
            for _, part in parts_in(name, value)
            if isinstance(part, Parameter)
        ]

    def modules(self) -> list[Module]:
        """This module and all inside it, each once."""
        found: dict[Module, None] = {}
        stack: list[Module] = [self]
        while stack:
            module = stack.pop()
            if module not in found:
                found[module] = None
                stack += reversed([child for _, child in module.children()])
        return list(found)

    def parameters(self) -> list[Parameter]:
        """All parameters, those of the modules inside too, each once: what an optimiser takes."""
        return list(dict.fromkeys(parameter for module in self.modules() for parameter in module.own_parameters()))

    def named_parameters(self) -> dict[str, Parameter]:
        """The parameters by the names they have in a graph of this module alone.

        Free-standing twins, as two modules of one name in a list are, have numbers in the order of attributes here,
        and in a graph in the order in which they are used.
        """
        parameters = self.parameters()
        return {name: node for node, name in unique_names(parameters, {}).items() if isinstance(node, Parameter)}

    def __repr__(self) -> str:
        count = sum(parameter.size for parameter in self.parameters())
        inside = ", ".join(f"{name}={type(child).__name__}" for name, child in self.children())
        return f"{type(self).__name__}({inside + '; ' if inside else ''}{count:,} parameters)"

    # --- values in and out ---

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """A copy of the value of each parameter, by name."""
        return {name: np.array(parameter.value) for name, parameter in self.named_parameters().items()}

    def load_state_dict(self, values: Mapping[str, ArrayLike]) -> None:
        """Take the values of all parameters, by name; nothing changes unless all fit.

        Raises
        ------
        UnknownNameError
            If a name is missing or unknown.
        OperandError
            If a value has another shape than its parameter.
        """
        check_mapping(values, "load_state_dict")
        own = self.named_parameters()
        for name in values:
            if name not in own:
                raise UnknownNameError(f"{type(self).__name__} has no parameter {name!r}. {did_you_mean(name, own)}")
        missing = [name for name in own if name not in values]
        if missing:
            raise UnknownNameError(f"no value was given for {', '.join(map(repr, missing))}")
        assign({parameter: np.asarray(constant(values[name]).value) for name, parameter in own.items()})

    def from_torch(self, state_dict: Mapping[str, Any]) -> Self:
        """Take the parameters of the PyTorch module of the same layers; returns the module.

        Parameters
        ----------
        state_dict : mapping of str → array
            As `module.state_dict()` of PyTorch gives it, tensors or arrays: `weight_ih_l0`, .... Keys of layers
            inside carry the attributes' names before them, as there. The two biases of an RNN or LSTM are added up.

        Raises
        ------
        UnknownNameError
            If a key is missing or belongs to nothing.
        OperandError
            If an array has another shape than the layer expects, or a layer has no counterpart in PyTorch.
        """
        check_mapping(state_dict, "from_torch")
        used: set[str] = set()

        def take(key: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
            if key not in state_dict:
                raise UnknownNameError(f"the state dict has no {key!r}. {did_you_mean(key, state_dict)}")
            array = np.asarray(state_dict[key])
            if array.shape != shape:
                raise OperandError(f"{key!r} has shape {array.shape}, but {type(self).__name__} needs {shape} there")
            used.add(key)
            return array

        found = dict(self.read_torch("", take))
        unknown = [key for key in state_dict if key not in used]
        if unknown:
            raise UnknownNameError(f"the state dict holds {unknown[0]!r}, for which {self!r} has no place")
        assign(found)
        return self

    def to_torch(self) -> dict[str, np.ndarray[Any, Any]]:
        """The parameters as the state dict of the PyTorch module of the same layers; see `from_torch`.

        Where PyTorch has two biases of which only the sum matters, the second is 0.
        """
        return dict(self.write_torch(""))

    def read_torch(self, prefix: str, take: TakeTorch) -> Iterator[tuple[Parameter, np.ndarray[Any, Any]]]:
        """Each parameter with its value from a state dict of PyTorch."""
        self.refuse_torch_if_own()
        for name, child in self.children():
            yield from child.read_torch(f"{prefix}{name}.", take)

    def write_torch(self, prefix: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Keys and arrays of a state dict of PyTorch."""
        self.refuse_torch_if_own()
        for name, child in self.children():
            yield from child.write_torch(f"{prefix}{name}.")

    def refuse_torch_if_own(self) -> None:
        own = self.own_parameters()
        if own:
            raise OperandError(
                f"{type(self).__name__} has parameters of its own, such as {own[0].name!r}, whose place in a PyTorch "
                "module is not known: define read_torch and write_torch"
            )


WITHOUT_MODES = (
    "There are no modes to switch: dropout acts where gradients are computed, not in programs compiled with wrt=(), in "
    "streams or inside mg.no_grad()"
)


def parts_in(name: str, value: Any) -> Iterator[tuple[str, Module | Parameter]]:
    """The modules and parameters that an attribute holds: itself, or those in a list or dictionary."""
    if isinstance(value, Module | Parameter):
        yield name, value
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from parts_in(f"{name}.{number}", each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from parts_in(f"{name}.{key}", each)


def check_mapping(values: Any, what: str) -> None:
    """Refuse anything but a mapping, such as the name of a file."""
    if not isinstance(values, Mapping):
        raise OperandTypeError(f"{what} takes a mapping of names to arrays, not {values!r:.60}")


def assign(values: Mapping[Parameter, np.ndarray[Any, Any]]) -> None:
    """Give parameters new values, in their own dtype; none if one does not fit."""
    for parameter, value in values.items():
        if value.shape != parameter.shape:
            raise OperandError(f"{parameter.name!r} has shape {parameter.shape}, but its value {value.shape}")
        if value.dtype.kind not in "fiub":
            raise OperandTypeError(f"the value for {parameter.name!r} holds {value.dtype}, not real numbers")
    for parameter, value in values.items():
        is_array = isinstance(parameter.value, np.ndarray)
        parameter.value = value.astype(parameter.dtype) if is_array else type(parameter.value)(value)


def as_dtype(x: Tensor, parameter: Tensor) -> Tensor:
    """What a layer is called on, in the dtype of its parameters: a layer computes in its own precision."""
    return x if x.dtype == parameter.dtype else x.astype(parameter.dtype)


def check_features(module: Module, x: Tensor, features: int) -> None:
    """Refuse an input whose last axis is not that of the layer's weights."""
    if x.ndim < 1 or x.shape[-1] != features:
        name = f"{str(module.scope)!r} ({type(module).__name__})" if str(module.scope) else type(module).__name__
        called = f"{x.name!r} of shape {x.shape}" if x.name else f"shape {x.shape}"
        hint = ": give numbers an axis of features, as in x[:, None]" if features == 1 else ""
        raise OperandError(f"{name} takes (..., {features}), but was called on {called}{hint}")


def check_varies(module: Module, x: Tensor) -> None:
    """Refuse an input without timesteps, on which nothing recurs."""
    if not x.depends_on_time():
        raise OperandError(
            f"{type(module).__name__} is recurrent, but was called on what is the same at all timesteps. Call it on "
            "an mg.input(...), or on what depends on one"
        )
