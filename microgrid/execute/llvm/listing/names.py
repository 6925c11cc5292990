"""What things are called in a listing: nodes by their names in the graph, registers after them."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from microgrid.execute.memory import Layout
from microgrid.leaves import State
from microgrid.tensor import Tensor

INDICES = (("T", "steps"), ("t", "step", "time"), ("row", "sample"), ("k", "j", "column"), ("batch", "rows"))
"""The number of timesteps, a timestep, a row, a column and the number of rows: the first name that is no node's."""

FUNCTIONS = ("tanh", "sigmoid", "exp", "expm1", "log", "log1p", "sqrt", "maximum", "minimum", "float32", "float64")
RESERVED = {*FUNCTIONS, "empty", "range", "reversed", "sum", "abs", "bool", "len", "inf", "nan"}


def identifier(name: str) -> str:
    """A node's name as one of Python.

    >>> identifier("lstm.h.grad⁺"), identifier("1st"), identifier("lambda")
    ('lstm_h_grad', '_1st', 'lambda_')
    """
    word = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name.replace("⁺", "")))
    word = f"_{word}" if word[:1].isdigit() or not word else word
    return f"{word}_" if keyword.iskeyword(word) or word in RESERVED else word


def shortened(names: Mapping[Tensor, str]) -> dict[Tensor, str]:
    """Each name without the scopes that it does not need to be told from the others.

    >>> a, b, c = mg.tensor(1.0), mg.tensor(2.0), mg.tensor(3.0)
    >>> list(shortened({a: "lstm.W", b: "lstm.h.grad", c: "head.W"}).values())
    ['lstm.W', 'h.grad', 'head.W']
    """
    endings = {node: endings_of(name) for node, name in names.items()}
    times = Counter(ending for found in endings.values() for ending in found)
    return {node: next((each for each in found if times[each] == 1), found[-1]) for node, found in endings.items()}


def endings_of(name: str) -> list[str]:
    """A name with more and more of its scopes, but none that would begin with a digit."""
    *scopes, last = re.split(r"\.(?!grad)", name)
    found = [".".join([*scopes[len(scopes) - count :], last]) for count in range(len(scopes) + 1)]
    return [each for each in found if not each[:1].isdigit()] or [name]


def is_named(node: Tensor) -> bool:
    """Whether someone gave a node its name: it is not made of its operation and a number."""
    if node._name is None or node.primitive is None:
        return node._name is not None
    return not re.fullmatch(rf"{re.escape(node.primitive.name)}_\d+", node._name.text)


class Names:
    """Names of which no two are the same.

    Attributes
    ----------
    own : dict of Tensor → str
        What each node is called.
    T, t, row, k, batch : str
        What `INDICES` says.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        wanted = {node: identifier(name) for node, name in shortened(layout.graph.names).items()}
        words = set(wanted.values())
        self.T, self.t, self.row, self.k, self.batch = (
            next((word for word in choice if word not in words), f"{choice[0]}_") for choice in INDICES
        )
        self.taken = {self.T, self.t, self.row, self.k, self.batch}
        self.own: dict[Tensor, str] = {}
        for node in sorted(layout.graph.nodes, key=lambda node: not isinstance(node, State)):
            state = self.state_of(node)
            if state is not None and wanted[state] == wanted[node]:
                self.own[node] = self.own[state]  # h.grad⁺ and h.grad are rows of one array
            else:
                self.own[node] = self.free(wanted[node])
        self.registers: dict[tuple[Tensor, int], str] = {}

    def free(self, word: str) -> str:
        """A name that nothing else has."""
        while word in self.taken:
            word += "_"
        self.taken.add(word)
        return word

    def state_of(self, node: Tensor) -> State | None:
        """The state of which a node is the next."""
        buffer = self.layout.buffer.get(node)
        return buffer.state if buffer is not None and buffer.owner is node else None

    def has_own_name(self, node: Tensor) -> bool:
        """Whether a state's next has a name of its own, by which it is known beside the state."""
        return self.state_of(node) is not None and is_named(node) and self.own[node] != self.array(node)

    def array(self, node: Tensor) -> str:
        """The name of the array in which a varying node's rows lie: a state's for its next, too."""
        buffer = self.layout.buffer[node]
        return self.own[buffer.owner if buffer.state is None else buffer.state]

    def register(self, node: Tensor, piece: int, wanted: str) -> str:
        """The name of the register of a piece of a node."""
        key = node, piece
        if key not in self.registers:
            self.registers[key] = self.free(wanted)
        return self.registers[key]
