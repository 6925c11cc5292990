"""Chapter 18: the program that runs.

You will see a cell that no library has, with two units, three ways: as a graph, as equations, and as the
program that is made of it, a loop with a line for each number. What waits for the timestep before, what
is kept for the way back and what never leaves the processor's registers can be read off it. Then both
executors, NumPy and machine code, compute the same numbers, each in its own time.
"""

import html
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import fill, indent
from time import perf_counter

import numpy as np

import microgrid as mg
import viz
from viz.theme import LIGHT

OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

STEPS, BATCH, FEATURES = 50, 3, 2


def record(hidden: int, batch: int) -> tuple[mg.Graph, mg.Graph]:
    """The network, and its loss."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> mg.Parameter:
        return mg.parameter(rng.normal(size=shape) / np.sqrt(hidden), name=name)

    x = mg.input(np.zeros((batch, FEATURES)), name="x", requires_grad=False)
    target = mg.input(np.zeros((batch, 1)), name="target", requires_grad=False)
    h, c = mg.state(np.zeros((batch, hidden)), name="h"), mg.state(np.zeros((batch, hidden)), name="c")

    # The cell: one gate, which sees the memory c itself, decides what of c gives way to something new.
    z = x @ weight("W", FEATURES, 2 * hidden) + h @ weight("U", hidden, 2 * hidden)
    z_gate, z_new = mg.split(z, 2, axis=1)
    gate = mg.sigmoid(z_gate + weight("p", hidden) * c).named("gate")
    new = mg.tanh(z_new).named("new")
    c.next = gate * c + (1 - gate) * new
    h.next = mg.tanh(c.next)

    y = (h.next @ weight("V", hidden, 1)).named("y")
    return mg.Graph(y=y), mg.Graph(loss=mg.time_mean(mg.mean((y - target) ** 2)))


def data(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(STEPS, batch, FEATURES)), "target": rng.normal(size=(STEPS, batch, 1))}


def available_executors() -> list[str]:
    """Both, or NumPy alone where the package is missing that makes machine code; then says what to install."""
    try:
        mg.compile(mg.Graph(mg.input(0.0, name="x")), wrt=(), executor="llvm")
    except mg.errors.MissingExtraError as missing:
        print(f"({missing}. Without it the program is made of NumPy's functions, and so it is shown below.)\n")
        return ["numpy"]
    return ["numpy", "llvm"]


def computing(source: str) -> str:
    """A program without its introduction and what NumPy does at its end."""
    start = source.index("T = len(x)") if "T = len(x)" in source else 0
    return source[start:].split("\n\n# NumPy, once: last")[0].rstrip()


def milliseconds(work: Callable[[], object]) -> float:
    """The fastest of several runs: other work on the machine only makes them slower."""
    times = []
    for _ in range(15):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return 1000 * min(times)


# --- the picture ---

SIZE, LINE = 14, 21


def coloured(line: str, colours: dict[str, str]) -> str:
    """A line of text for an SVG: names of nodes in the colours that they have in the graph, comments in grey."""

    def mark(word: re.Match[str]) -> str:
        colour = colours.get(re.sub("_t?$", "", word[0]))  # c_t and h_{t−1} are c and h
        return f'<tspan fill="{colour}">{word[0]}</tspan>' if colour else word[0]

    code, hash_sign, comment = line.partition("#")
    code = re.sub(r"[^\W\d]\w*", mark, html.escape(code, quote=False))
    return code + (f'<tspan fill="{LIGHT.quiet_ink}">#{html.escape(comment)}</tspan>' if hash_sign else "")


def beside(graph: mg.Graph, texts: dict[str, str]) -> str:
    """An SVG of a graph and, to the right of it, of some texts under their titles."""
    drawn = viz.draw(graph).render("svg").decode()
    drawn = drawn[drawn.index("<svg") :].replace('pt"', '"', 2)  # in the units of the texts
    width, height = (float(number) for number in re.findall(r'(?:width|height)="([\d.]+)"', drawn)[:2])
    kinds = [
        ("input", graph.inputs),
        ("parameter", graph.parameters),
        ("state", graph.states),
        ("output", graph.outputs),
    ]
    colours = {graph.names[node]: LIGHT.nodes[kind].line for kind, nodes in kinds for node in nodes}
    lines = [line for title, text in texts.items() for line in ["", f"— {title}", "", *text.split("\n"), ""]]
    total = max(height, LINE * (len(lines) + 1))
    left, top = width + 40, (total - LINE * len(lines)) / 2
    rows = []
    for number, line in enumerate(lines, start=1):
        look = f' font-family="Helvetica, sans-serif" fill="{LIGHT.quiet_ink}"' if line.startswith("— ") else ""
        text = line.removeprefix("— ") if look else coloured(line, colours)
        rows.append(f'<text x="{left:.0f}" y="{top + number * LINE:.0f}" xml:space="preserve"{look}>{text}</text>')
    drawn = drawn.replace("<svg", f'<svg y="{(total - height) / 2:.0f}"', 1)
    whole = left + 0.6 * SIZE * max(map(len, lines)) + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole:.0f}" height="{total:.0f}" font-size="{SIZE}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" fill="{LIGHT.ink}">'
        f'<rect width="100%" height="100%" fill="{LIGHT.background}"/>{drawn}{"".join(rows)}</svg>'
    )


def main() -> None:
    available = available_executors()
    best = available[-1]
    net, loss = record(hidden=2, batch=BATCH)

    print("1. The cell: one gate, which sees the memory c")
    print(indent(str(mg.equations(net)).split("\n\n")[0], "   "))
    for cycle in net.cycles:
        print(f"   {len(cycle.nodes)} nodes recur; the shortest way round: {cycle}")

    print("\n2. What has to wait for the timestep before, and what does not")
    values = mg.compile(net, wrt=(), executor=best)
    for line in str(values.schedule).splitlines():
        print(fill(line, width=108, initial_indent="   ", subsequent_indent=" " * 28))

    print("\n3. The program that is made of it\n")
    print(indent(computing(values.source), "   "))
    if best == "llvm":
        print("\n   This is what the machine code does, as Python; where a row is long, it takes several k at once.")
        print(
            "   - x @ W reads no state: one product serves many timesteps. h[t - 1] @ U has to wait: it is in the loop."
        )
        print(
            "   - All between these products and the next c and h is one loop over k, with a line each for new, gate,"
        )
        print("     c and h, like the equations. The other nodes of the graph are inside these lines.")
        print(
            "   - What has an index is in memory. new and gate have none: they are in registers, for one k, and gone."
        )
    texts = {
        "as equations": str(mg.equations(net)).split("\n\n")[0],
        "as the program that runs": computing(values.source),
    }
    (OUT / "18_fused.svg").write_text(beside(net, texts), encoding="utf-8")
    print("   wrote examples/out/18_fused.svg (the graph, its equations and its program side by side)")

    print("\n4. With the gradient\n")
    step = mg.compile(loss, executor=best)
    backwards = step.source
    if best == "llvm":
        backwards = backwards[backwards.index("# --- kernel 1") :].split("\n\n# NumPy")[0]
    print(indent(backwards.rstrip(), "   "))
    if best == "llvm":
        print("\n   The way back is a loop from the last timestep to the first. Of h.grad and c.grad it needs those of")
        print("   t + 1 and no others: two rows of memory, in turns. It reads gate and new, so here the loop of part 3")
        print("   keeps them. The gradients of the weights wait for nothing: they are products at the end.")

    print("\n5. The same numbers")
    sequences = data(BATCH)
    dag = loss.unroll(sequences)
    dag.backward()
    print(f"   unrolled       loss {float(dag.output):.15f}")
    for executor in available:
        run = mg.compile(loss, executor=executor)(sequences)
        off = max(float(np.abs(run.grads[weight] - weight.grad).max()) for weight in loss.parameters)
        print(f"   {executor:14} loss {float(run.value):.15f}, gradients within {off:.0e}")
        assert abs(float(run.value) - float(dag.output)) < 1e-12
        assert off < 1e-12

    print("\n6. What it gains on this machine, today")
    hidden, batch = 16, 4
    _, larger = record(hidden, batch)
    sequences = data(batch)
    print(f"   values and gradients, {STEPS} timesteps, {batch} sequences, {hidden} units, the fastest of 15 runs:")
    fastest = []
    for executor in available:
        began = perf_counter()
        larger_step = mg.compile(larger, executor=executor)
        larger_step(sequences)
        first = perf_counter() - began
        fastest.append(milliseconds(lambda step=larger_step: step(sequences)))
        print(f"   {executor:6} {fastest[-1]:6.2f} ms; the first run was there after {first:.2f} s")
    if best == "llvm":
        ratio = fastest[0] / fastest[1]
        print(f"   That is 1 : {ratio:.1f}. Saved are calls of NumPy, and passes through memory; where matrices are")
        print("   large, their products take the time, and less is gained. Machine code is made once for a network and")
        print('   then found on disk; executor="auto" starts on NumPy and moves over when it is ready.')


if __name__ == "__main__":
    main()
