"""Choosing an executor: the names, what is missing, moving over in the background, training with one."""

import importlib.util
import subprocess
import sys
import threading

import numpy as np
import pytest

import microgrid as mg
from microgrid.compiled import moving
from microgrid.errors import MissingExtraError, OperandError, UnknownNameError
from microgrid.execute.llvm import machine


def rnn(rng, dtype=np.float64):
    """A loss of a small recurrent network, and sequences for it."""
    x, target = mg.input(np.zeros((4, 3), dtype), name="x"), mg.input(np.zeros((4, 1), dtype), name="target")
    h = mg.state(np.zeros((4, 8), dtype), name="h")
    W, U, V = (
        mg.parameter(0.3 * rng.normal(size=s).astype(dtype), name=n)
        for n, s in (("W", (3, 8)), ("U", (8, 8)), ("V", (8, 1)))
    )
    h.next = mg.tanh(x @ W + h @ U)
    loss = mg.time_mean(mg.mean((h.next @ V - target) ** 2))
    return loss, {"x": rng.normal(size=(11, 4, 3)).astype(dtype), "target": rng.normal(size=(11, 4, 1)).astype(dtype)}


def assert_equal_runs(one, two, tolerance=1e-12):
    np.testing.assert_allclose(one.value, two.value, rtol=tolerance)
    for name, grad in two.grads.items():
        np.testing.assert_allclose(one.grads[name], grad, rtol=0, atol=tolerance * np.max(np.abs(grad)), err_msg=name)


def test_an_unknown_executor_is_refused_with_the_names_there_are():
    loss, _ = rnn(np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match=r"no executor 'lvm'.*llvm"):
        mg.compile(loss, executor="lvm")


def test_without_llvmlite_the_error_says_how_to_install_it(monkeypatch):
    loss, sequences = rnn(np.random.default_rng(0))
    machine._installed.cache_clear()
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "llvmlite" else real(name, *rest)
    )
    try:
        for executor in ("llvm", "numba", "auto"):
            with pytest.raises(MissingExtraError, match=r"pip install 'microgrid-autodiff\[fast\]'"):
                mg.compile(loss, executor=executor)
        mg.compile(loss)(sequences)
    finally:
        monkeypatch.undo()
        machine._installed.cache_clear()


def test_the_base_install_never_imports_llvmlite():
    code = (
        "import sys, microgrid as mg; x = mg.input(0.0, name='x'); mg.compile(mg.time_sum(x * x))(x=[1.0]); "
        "print([name for name in sys.modules if 'llvmlite' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_a_number_of_threads_that_is_none_is_refused(count):
    with pytest.raises(OperandError, match="number of threads"):
        mg.set_num_threads(count)


llvm = pytest.mark.skipif(not machine.available(), reason="llvmlite is not installed")


@llvm
def test_numba_is_another_name_for_llvm():
    loss, sequences = rnn(np.random.default_rng(1))
    assert mg.compile(loss, executor="numba").executor == "llvm"
    assert_equal_runs(mg.compile(loss, executor="numba")(sequences), mg.compile(loss)(sequences))


@llvm
@pytest.mark.parametrize("checkpoint_every", [None, 4])
def test_auto_runs_at_once_and_moves_over_with_the_same_numbers(monkeypatch, checkpoint_every):
    loss, sequences = rnn(np.random.default_rng(2))
    held = threading.Event()
    replace = moving.Moving.replace

    def waits(self, make):
        held.wait(60)
        replace(self, make)

    monkeypatch.setattr(moving.Moving, "replace", waits)
    step = mg.compile(loss, executor="auto", checkpoint_every=checkpoint_every)
    expected = mg.compile(loss, checkpoint_every=checkpoint_every)(sequences)
    first = step(sequences)
    (program,) = step.programs.values()
    before = program.now
    held.set()
    assert program.ready.wait(60)
    assert program.error is None
    assert program.now is not before
    for run in (first, step(sequences), step(sequences)):
        assert_equal_runs(run, expected)


@llvm
def test_auto_stays_where_it_is_if_the_other_cannot_be_made(monkeypatch):
    loss, sequences = rnn(np.random.default_rng(2))
    monkeypatch.setattr(machine, "load", lambda source: 1 / 0)
    step = mg.compile(loss, executor="auto")
    step(sequences)
    (program,) = step.programs.values()
    assert program.ready.wait(60)
    assert isinstance(program.error, ZeroDivisionError)
    assert_equal_runs(step(sequences), mg.compile(loss)(sequences))


@llvm
def test_the_schedule_says_what_numpy_computes():
    rng = np.random.default_rng(3)
    x = mg.input(np.zeros((4, 3)), name="x")
    h = mg.state(np.zeros((4, 3)), name="h")
    h.next = mg.tanh(x + h)
    y = mg.cumsum(h.next, axis=1).named("heights")
    step = mg.compile(mg.time_sum(mg.sum(y * 2.0, axis=1)), wrt=(), executor="llvm")
    assert "(by NumPy: heights)" in str(step.schedule)
    assert "by NumPy" not in str(mg.compile(rnn(rng)[0], executor="llvm").schedule).split("once")[2]


@llvm
def test_the_schedule_names_the_operation_that_keeps_a_loop_on_numpy():
    x, h = mg.input(np.zeros((4, 3)), name="x"), mg.state(np.zeros((4, 3)), name="h")
    h.next = mg.tanh(x + mg.cumsum(h, axis=1).named("heights"))
    step = mg.compile(mg.time_sum(mg.sum(h.next, axis=1)), wrt=(), executor="llvm")
    (loop,) = [line for line in str(step.schedule).splitlines() if line.startswith("step by step")]
    assert loop.endswith("(by NumPy, because of heights)")


@llvm
def test_training_and_evaluation_with_machine_code_follow_those_with_numpy():
    losses = []
    for executor in ("numpy", "llvm"):
        loss, sequences = rnn(np.random.default_rng(4))
        history = mg.fit(loss, sequences, epochs=5, progress=False, executor=executor)
        losses.append([*history["loss"], mg.evaluate(loss, sequences, executor=executor)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-10)


@llvm
def test_float32_agrees_to_rounding():
    loss, sequences = rnn(np.random.default_rng(5), np.float32)
    run = mg.compile(loss, executor="llvm")(sequences)
    assert run.grads["U"].dtype == np.float32
    assert_equal_runs(run, mg.compile(loss)(sequences), 1e-5)


@llvm
def test_a_result_that_somebody_holds_is_not_written_again():
    loss, sequences = rnn(np.random.default_rng(6))
    step = mg.compile(loss, executor="llvm")
    held = [step(sequences).grads["U"] for _ in range(4)]
    part = step(sequences).grads["W"][1:]
    copies = [array.copy() for array in (*held, part)]
    for _ in range(3):
        step(x=2 * sequences["x"], target=sequences["target"])
    for array, copy in zip((*held, part), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
