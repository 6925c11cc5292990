"""The functions of a NumPy program as text to read: their numbered names replaced by those of nodes and of NumPy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import FunctionType

import numpy as np

from microgrid.execute.code import Step
from microgrid.execute.llvm.listing.names import identifier, is_named, shortened
from microgrid.execute.llvm.listing.text import WIDTH, wrapped
from microgrid.execute.on_numpy import Program
from microgrid.leaves import State
from microgrid.schedule import heading
from microgrid.tensor import Tensor, is_fixed_number


def source_of(program: Program) -> str:
    """What runs, function by function, with a comment above each."""
    words = names_of(program)
    steps = [step for _, steps in program.steps for step in steps]
    texts = ["\n".join(lines_of(step, f"block_{number}", program, words)) for number, step in enumerate(steps)]
    return "\n\n".join(texts) + "\n"


def names_of(program: Program) -> dict[Tensor, str]:
    """A name for each node that no other has; the next of a state, if nobody named it, is called after the state."""
    graph = program.graph
    found: dict[Tensor, str] = {}
    nexts = {state.next: state for state in graph.states if not is_named(state.next)}
    names = shortened(graph.names)
    taken: set[str] = set()
    for node in graph.nodes:
        name = names[nexts[node]] if node in nexts else names[node]
        word = identifier(name) + ("_next" if node in nexts else "_later" if name.endswith("⁺") else "")
        while word in taken:
            word += "_"
        taken.add(word)
        found[node] = word
    return found


def lines_of(step: Step, name: str, program: Program, words: dict[Tensor, str]) -> Iterator[str]:
    """A comment and the lines of a function; a node has one name there, whatever the shape in which it is seen."""
    if step.block is None:
        yield "# before the first timestep: initial values"
    else:
        computed = [words[node] for node in step.block.nodes if not isinstance(node, State)]
        yield from wrapped(f"# {heading(step.block)}: ", computed, "#     ")
    first, *lines = step.source.split("\n")
    by_slot = {f"s{slot}": node for node, slot in program.slots.items()}
    numbers = {name: repr(node.value) for name, node in by_slot.items() if is_fixed_number(node)}
    found = {name: words[node] for name, node in by_slot.items()} | numbers | outside(step)
    arguments: dict[str, None] = {}
    for argument, view in zip(re.findall(r"\w+", first)[3:], step.views, strict=True):
        word = words[view.node] + (f"_part_{view.part}" if view.part >= 0 else "")
        if view.form == "rows":  # one for each timestep, with an s at the end of the name
            found[argument.removesuffix("s")], found[argument] = word, f"all_{word}"
            arguments[f"all_{word}"] = None
            continue
        others = {"start": f"{word}_start", "steps": "T", "transposed": f"{word}.T", "ones": "ones"}
        found[argument] = others.get(view.form, word)
        arguments[found[argument].removesuffix(".T")] = None
    yield from wrapped(f"def {name}(S, " if arguments else f"def {name}(S", [*arguments], 8 * " ", end="):")
    for line in lines:
        if line.split(" = S[")[0].strip() in numbers:
            continue
        defined = re.match(r"\s*(s\d+) = ([fk]_?\d+)\(", line)
        if defined and (primitive := by_slot[defined[1]].primitive) is not None:
            line = line.replace(f"= {defined[2]}(", f"= {primitive.name}(", 1)
        line = re.sub(r"\*\*(\w+)", lambda setting: found[setting[1]].removeprefix("dict(").removesuffix(")"), line)
        line = re.sub(r"[^\W\d]\w*", lambda word: found.get(word[0], word[0]), line)
        if line.startswith("    for "):
            yield from loop_over(line.removeprefix("    for ").split(" in ")[0].split(", "))
            continue
        yield line


def loop_over(rows: list[str]) -> Iterator[str]:
    """The line that goes through the rows of some nodes together; several lines if they are many."""
    together = [f"all_{word}" for word in rows]
    if len(rows) == 1:
        yield f"    for {rows[0]} in {together[0]}:"
        return
    line = f"    for {', '.join(rows)} in zip({', '.join(together)}):"
    if len(line) <= WIDTH:
        yield line
        return
    yield from wrapped("    for (", rows, 8 * " ", end=") in zip(")
    yield from wrapped(8 * " ", together, 8 * " ", end="):")


def outside(step: Step) -> dict[str, str]:
    """What the functions, numbers and settings are called that a function refers to."""
    assert isinstance(step.run, FunctionType)
    found: dict[str, str] = {}
    for name, thing in step.run.__globals__.items():
        called = getattr(thing, "__name__", "")
        if isinstance(thing, np.ndarray) and thing.ndim == 0:
            found[name] = repr(thing.item())
        elif isinstance(thing, dict) and not name.startswith("__"):
            found[name] = f"dict({', '.join(f'{key}={value!r}' for key, value in thing.items())})"
        elif thing == np.add.reduce:
            found[name] = "np.add.reduce"
        elif getattr(np, called, None) is thing:
            found[name] = f"np.{called}"
    return found
