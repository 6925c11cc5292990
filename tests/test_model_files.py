"""Models on disk: what is loaded is what was saved, bit for bit, and no file does harm."""

import copy
import errno
import json
import math
import os
import pickle
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import NETWORKS
from random_networks import RandomNetwork

import microgrid as mg
from microgrid.errors import FileFormatError, OperandTypeError, StateError
from microgrid.files import arrays as files_arrays
from microgrid.files import load, save, whole
from microgrid.files.arrays import read_arrays, write_arrays
from microgrid.files.describe import description_of
from microgrid.files.leaf_kinds import LEAF_KINDS, LeafKind
from microgrid.files.restore import graph_of
from microgrid.files.whole import write_whole
from microgrid.files.work import RULES
from microgrid.ops.time import DELAY, DELAY_BACK
from microgrid.primitive import DECLARED, Primitive, record
from microgrid.tensor import Tensor

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # who may read and write everything


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def there_and_back(net, path):
    save(net, path)
    return load(path)


# --- equality ---------------------------------------------------------------------------------------------


def assert_same_value(found, expected, what=""):
    assert type(found) is type(expected), what
    assert np.result_type(found) == np.result_type(expected), what
    np.testing.assert_array_equal(found, expected, err_msg=str(what), strict=isinstance(found, np.ndarray))


def assert_same_graph(found, net):
    """The same nodes in the same order, of the same names, settings and leaf values."""
    assert list(found.names.values()) == list(net.names.values())
    assert repr(found) == repr(net)
    assert repr(found.cycles) == repr(net.cycles)
    assert list(found.aliases.values()) == list(net.aliases.values())
    numbers = {node: i for i, node in enumerate(net)} | {node: i for i, node in enumerate(found)}
    assert [numbers[node] for node in found.outputs] == [numbers[node] for node in net.outputs]
    for a, b in zip(found, net, strict=True):
        assert type(a) is type(b)
        assert a.primitive is b.primitive
        assert a.requires_grad == b.requires_grad
        assert_same_settings(a.params, b.params)
        assert [numbers[x] for x in a.operands] == [numbers[x] for x in b.operands]
        if isinstance(b, mg.State):
            assert (numbers[a.next], a.reverse) == (numbers[b.next], b.reverse)
        if b.primitive is None:
            assert_same_value(a.value, b.value, net.names[b])


def assert_same_settings(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "dtype":  # may be written in several ways
            assert np.dtype(found[key]) == np.dtype(value)
        else:
            assert repr(found[key]) == repr(value)
            assert type(found[key]) is type(value)


def sequences_for(net, steps, seed):
    """Sequences of the dtype of each input, of integers such as its example's."""
    rng = np.random.default_rng(seed)
    found = {}
    for node in net.inputs:
        shape = (steps, *node.shape)
        found[net.names[node]] = (
            rng.normal(size=shape).astype(node.dtype)
            if node.dtype.kind == "f"
            else rng.integers(0, int(np.max(node.value)) + 1, size=shape)
        )
    return found


def loss_of(net):
    """One number of all outputs, to differentiate."""
    total = 0.0
    for k, output in enumerate(net.outputs):
        number = mg.sum(mg.sin(output + 0.3 * k))
        total = total + (mg.time_sum(number) if output in net.varying else number)
    return mg.Graph(total)


def results(net, steps=3, seed=0):
    """What a network computes, unrolled and compiled: values of all nodes, gradients and final states, by name."""
    loss = loss_of(net)
    sequences = sequences_for(net, steps, seed)
    loss.zero_grad()
    dag = loss.unroll(sequences, steps=steps)
    found = {f"value {loss.names[node]}": dag.values(node) for node in loss}
    by = [*loss.parameters, *(x for x in loss.inputs if x.requires_grad)]
    if by:
        dag.backward()
        for node in by:
            found[f"gradient {loss.names[node]}"] = dag.grads(node) if node in net.varying else np.asarray(node.grad)
        run = mg.compile(loss, wrt=by)(sequences, steps=steps)
        found |= {f"compiled gradient {name}": np.asarray(value) for name, value in run.grads.items()}
        loss.zero_grad()
    run = mg.compile(net, wrt=())(sequences, steps=steps)
    found |= {f"compiled value {name}": np.asarray(value) for name, value in run.outputs.items()}
    return found | {f"state {name}": np.asarray(value) for name, value in run.state.items()}


def assert_same_results(found, net):
    ours, theirs = results(found), results(net)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name, strict=value.dtype != object)


# --- every network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_network_is_the_saved_one(name, path):
    net = NETWORKS[name]()
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    assert_same_results(found, net)


@pytest.mark.parametrize("seed", range(40))
def test_a_loaded_random_network_is_the_saved_one(seed, path):
    net, _ = RandomNetwork(seed, both_directions=seed % 4 > 0).tensors(numbers_as_floats=seed % 2 > 0)
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    assert_same_results(found, net)


@pytest.mark.parametrize("name", ["rnn", "gru", "learnable_start", "static_operations", "bidirectional", "embedding"])
def test_a_gradient_as_a_graph_can_be_saved(name, path):
    adjoint = mg.differentiate(NETWORKS[name]())
    found = there_and_back(adjoint, path)
    assert_same_graph(found, adjoint)
    sequences = sequences_for(adjoint, 4, seed=1)
    dags = [graph.unroll(sequences, steps=4) for graph in (found, adjoint)]
    for ours, theirs in zip(dags[0].outputs, dags[1].outputs, strict=True):
        np.testing.assert_array_equal(ours.value, theirs.value)


@pytest.mark.parametrize("name", ["rnn", "bidirectional", "forward_then_reverse", "odd_delays"])
def test_an_unrolled_network_can_be_saved(name, path):
    net = NETWORKS[name]()
    dag = net.unroll(sequences_for(net, 3, seed=2), steps=3)
    unrolled = mg.Graph(dag.over_time(net.outputs[0])[-1])
    found = there_and_back(unrolled, path)
    assert_same_graph(found, unrolled)
    np.testing.assert_array_equal(found.output.value, unrolled.output.value)


def test_two_windows_of_one_network_keep_the_names_of_their_copies(path):
    net = NETWORKS["scalar"]()
    windows = [net.unroll(x=[1.0, 2.0]) for _ in range(2)]
    both = mg.Graph(windows[0]["h", 1] + windows[1]["h", 1])
    assert_same_graph(there_and_back(both, path), both)


def test_a_model_loads_in_another_program(path):
    net = NETWORKS["rnn"]()
    save(net, path)
    x, target = np.random.default_rng(0).normal(size=(5, 2, 3)), np.ones((5, 2, 1))
    dag = net.unroll(x=x, target=target)
    dag.backward()
    np.savez(path.with_name("sequences.npz"), x=x, target=target)
    code = (
        "import sys, numpy as np; from microgrid.files import load; net = load(sys.argv[1]); "
        "dag = net.unroll(dict(np.load(sys.argv[2]))); dag.backward(); "
        "print(float(dag['loss'].value).hex(), net['U'].grad.tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(path), str(path.with_name("sequences.npz"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [float(dag["loss"].value).hex(), net["U"].grad.tobytes().hex()]


def test_parameters_are_saved_as_they_are_now(path):
    W = mg.parameter([1.0, 2.0], name="W")
    net = mg.Graph(y=W * 2.0)
    W.value = np.array([5.0, 6.0])
    found = there_and_back(net, path)
    assert found["W"].value.tolist() == [5.0, 6.0]
    assert found["y"].value.tolist() == [10.0, 12.0]
    assert safetensors.numpy.load_file(path)["W"].tolist() == [5.0, 6.0]


def test_a_loaded_network_learns_on_its_own(path):
    """Its arrays can be written, and are not those of the saved one."""
    net = NETWORKS["rnn"]()
    found = there_and_back(net, path)
    before = net["W"].value.copy()
    found["W"].value -= 1.0
    assert (net["W"].value == before).all()
    assert (found["W"].value == before - 1.0).all()


# --- leaves -----------------------------------------------------------------------------------------------

VALUES = {
    **{name: np.array([1, 0, 3]).astype(name) for name in sorted(files_arrays.DTYPES)},
    "a number": 2.5,
    "a negative zero": -0.0,
    "a number that is none": math.nan,
    "an infinity": -math.inf,
    "an integer": -3,
    "a large integer": 2**63 - 1,
    "a truth": True,
    "an element": np.float32(0.1),
    "an element that is none": np.float64(math.nan),
    "an integer element": np.uint64(2**64 - 1),
    "a true element": np.bool_(True),
    "no axes": np.array(0.25),
    "nothing": np.zeros((0, 3)),
    "in columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "with infinities": np.array([np.nan, np.inf, -np.inf, -0.0]),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_leaf_keeps_its_value_and_type(what, path):
    value = VALUES[what]
    kinds = [mg.Input, Tensor] + [mg.Parameter] * (np.result_type(value).kind == "f")
    net = mg.Graph(*(kind(value) for kind in kinds))
    found = there_and_back(net, path)
    for node in found.outputs:
        assert_same_value(node.value, value)
        if isinstance(value, np.ndarray):
            assert node.value.flags.f_contiguous == value.flags.f_contiguous
            assert node.value.flags.writeable


@pytest.mark.parametrize(
    "array", [np.arange(6.0).astype(">f8"), np.arange(12.0)[::-2], np.broadcast_to(1.5, (3, 2)), np.ones((3, 4, 2)).T]
)
def test_an_array_in_any_order_of_memory_or_bytes_is_saved(array, path):
    net = mg.Graph(y=Tensor(array) * 2.0, z=mg.reshape(Tensor(array), -1))
    found = there_and_back(net, path)
    np.testing.assert_array_equal(found["y"].value, array * 2.0)
    np.testing.assert_array_equal(found["z"].value, array.reshape(-1))
    assert found["y"].operands[0].dtype == np.float64


def test_who_needs_a_gradient_is_remembered(path):
    free, fixed = mg.tensor([1.0], name="free"), mg.tensor([1.0], name="fixed", requires_grad=False)
    given_ = mg.input([1.0], name="given", requires_grad=False)
    frozen = mg.parameter([1.0], name="frozen")
    net = mg.Graph(free * fixed + given_ * frozen)
    frozen.requires_grad = False
    found = there_and_back(net, path)
    assert [found[name].requires_grad for name in ("free", "fixed", "given", "frozen")] == [True, False, False, False]
    assert_same_graph(found, net)


def test_a_parameter_used_in_two_places_is_one_node(path):
    found = there_and_back(NETWORKS["embedding"](), path)
    assert len(found.parameters) == 2
    assert len(found.readers[found["E"]]) == 2


def test_what_no_grad_records_stays_without_gradient(path):
    x, w = mg.input(2.0, name="x"), mg.parameter(3.0, name="w")
    with mg.no_grad():
        still = (x * w).named("still")
    net = mg.Graph(loss=mg.time_sum(still * w + x.detach() * w))
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    assert_same_results(found, net)
    assert not found["still"].requires_grad


def test_loading_inside_no_grad_or_a_scope_gives_the_same_graph(path):
    net = NETWORKS["rnn"]()
    save(net, path)
    with mg.no_grad(), mg.scope("elsewhere"):
        found = load(path)
    assert_same_graph(found, net)
    assert_same_results(found, net)


def test_examples_that_warned_when_they_were_recorded_load_in_silence(path):
    x = mg.input(np.zeros((0, 2)), name="x")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = mg.Graph(mg.mean(x), mg.log(mg.input(np.zeros(2), name="y")))
    save(net, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_graph(load(path), net)


def test_a_new_kind_of_leaf_brings_its_settings(path, monkeypatch):
    class Mask(mg.Input):
        __slots__ = ("rate",)

    def made(value, settings_):
        leaf = Mask(value)
        leaf.rate = settings_["rate"]
        return leaf

    mask = made(np.ones(3), {"rate": 0.25})
    mask.name = "mask"
    net = mg.Graph(y=mask * 2.0)
    with pytest.raises(FileFormatError, match=r"'mask'.*class Mask have no kind in LEAF_KINDS"):
        save(net, path)
    with monkeypatch.context() as patch:
        patch.setitem(LEAF_KINDS, "mask", LeafKind(Mask, made, lambda leaf: {"rate": leaf.rate}))
        found = there_and_back(net, path)
        assert type(found["mask"]) is Mask
        assert found["mask"].rate == 0.25
    with pytest.raises(FileFormatError, match="of the kind 'mask', which does not exist"):
        load(path)


# --- names ------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_graph(path):
    with mg.scope("cell"):
        a = mg.parameter(1.0, name="w")
    with mg.scope("cell"):
        b = mg.parameter(2.0, name="w")
    inner = (a * b).named("inner")
    net = mg.Graph(a + 1.0, y=inner, twice=inner + inner, again=inner)
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    assert {"cell_1.w", "cell_2.w", "y", "twice"} <= set(found.names.values())
    assert found["again"] is found["y"]
    assert found["y"].name == "inner"
    assert mg.Graph(found["y"]).names[found["y"]] == "inner"
    assert found["cell_1.w"].place == str(path)


def test_errors_about_a_loaded_network_name_its_file(path):
    found = there_and_back(NETWORKS["scalar"](), path)
    with pytest.raises(StateError) as caught:
        found["h"].next = found["x"]
    assert f"h.next was set before, at {path}" in str(caught.value)


@pytest.mark.parametrize("name", ["__metadata__", "#1", "", "ℏ·∂", "\ud800", "a/b\n", "x" * 1000, "microgrid"])
def test_a_parameter_of_any_name_is_saved(name, path):
    W, c = mg.parameter([1.0], name=name), np.array([2.0])
    net = mg.Graph(W * c)
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    assert found[name].value == 1.0


# --- settings ---------------------------------------------------------------------------------------------

X = np.arange(24.0).reshape(2, 3, 4) / 7
PICKS = np.array([1, 0, 1])
SETTINGS = {
    "one axis": lambda x: mg.sum(x, axis=-1),
    "axes": lambda x: mg.mean(x, axis=(0, 2), keepdims=True),
    "an axis of NumPy": lambda x: mg.max(x, axis=np.int64(1)),
    "ddof": lambda x: mg.var(x, axis=1, ddof=1),
    "a slice": lambda x: x[0:1],
    "slices": lambda x: x[::-1, ..., 1:3],
    "slices of NumPy's numbers": lambda x: x[np.int64(0) : np.int32(1)],
    "a new axis": lambda x: x[None, 0, :, None],
    "an ellipsis": lambda x: x[..., -1],
    "an array": lambda x: x[PICKS],
    "arrays": lambda x: x[PICKS, PICKS, [0, 1, 2]],
    "an array of two axes": lambda x: x[:, np.array([[0, 1], [2, 2]])],
    "a mask": lambda x: x[np.array([True, False])],
    "a mask of all axes": lambda x: x[X > 1.0],
    "a mask beside an array": lambda x: x[np.array([True, True]), PICKS[:2]],
    "a truth": lambda x: x[True],
    "a tuple inside": lambda x: x[(0, 1), :],
    "tensors": lambda x: x[mg.tensor(PICKS), :, mg.tensor(2)],
    "taken": lambda x: mg.take(x, PICKS, axis=2),
    "taken of all": lambda x: mg.take(x, PICKS),
    "einsum": lambda x: mg.einsum("abc,dc->adb", x, X[0]),
    "einsum with dots": lambda x: mg.einsum("...c->...", x),
    "a dtype": lambda x: mg.astype(x, np.float32),
    "a dtype by name": lambda x: mg.astype(x, "int16"),
    "a dtype of Python": lambda x: mg.astype(x, bool),
    "a dtype of the other byte order": lambda x: mg.astype(x, ">f4"),
    "padding": lambda x: mg.pad(x, ((1, 0), (0, 2), (0, 0)), constant_values=np.float64(1.5)),
    "padding with infinities": lambda x: mg.exp(mg.pad(x, 1, constant_values=-np.inf)),
    "padding by an array": lambda x: mg.pad(x, np.array([1, 2])),
    "padding by lists": lambda x: mg.pad(x, [[1, 0], [0, 0], [0, 1]]),
    "reshaped": lambda x: mg.reshape(x, (4, -1)),
    "reshaped by a list": lambda x: mg.reshape(x, [4, 6]),
    "transposed": lambda x: mg.transpose(x, (2, 0, 1)),
    "swapped": lambda x: mg.swapaxes(x, 0, -1),
    "squeezed": lambda x: mg.squeeze(x[:1], axis=0),
    "expanded": lambda x: mg.expand_dims(x, (0, 3)),
    "broadcast": lambda x: mg.broadcast_to(x, (5, 2, 3, 4)),
    "flipped": lambda x: mg.flip(x, (0, 1)),
    "joined": lambda x: mg.concatenate([x, x, X], axis=None),
    "stacked": lambda x: mg.stack([x, X], axis=-1),
    "summed up": lambda x: mg.cumsum(x, axis=1),
    "softmax": lambda x: mg.log_softmax(mg.softmax(x, axis=0), axis=(1, 2)),
    "chosen": lambda x: mg.where(x > 1.0, x, 0) + mg.clip(x, 0.5, 2),
    "powers": lambda x: x**2 + (x + 10) ** 0.5 + 2**x,
    "numbers of Python": lambda x: x * (mg.tensor(2) ** 3 + mg.tensor(True)),
    "over time": lambda x: mg.time_stack(x) + mg.time_mean(x),
    "unstacked": lambda x: mg.time_unstack(mg.time_stack(x)),
    "looked up": lambda x: mg.lookup(x[0], PICKS) + mg.pick(x[0], PICKS)[:, None],
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_of_operations_are_kept(what, path):
    x = mg.input(X, name="x")
    net = mg.Graph(y=SETTINGS[what](x))
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    for a, b in zip(found, net, strict=True):
        assert_same_value(a.value, b.value, net.names[b])
    if net["y"].requires_grad:
        assert_same_results(found, net)


def test_scatter_and_rows_of_gradients_are_kept(path):
    """The adjoints of indexing, which have shapes and templates as settings."""
    E, token = mg.parameter(X[0], name="E"), mg.input(PICKS, name="token")
    rows = mg.lookup(E, token) + E[token] + mg.take(E, token, axis=0) + mg.pick(E, token)[:, None]
    adjoint = mg.differentiate(mg.Graph(loss=mg.time_sum(mg.sum(rows**2))))
    assert_same_graph(there_and_back(adjoint, path), adjoint)


# --- what cannot be saved ---------------------------------------------------------------------------------


def scaled(by):
    @mg.primitive(vjp=lambda g, out, x, *, how: g)
    def files_scaled(x, how=by):
        return x * 1.0

    return files_scaled(mg.tensor(1.0))


def circle():
    inside = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scaled(len), "'files_scaled_1': it holds <built-in function len>, a builtin_function_or_method"),
        (lambda: scaled({"a": 1}), "it holds {'a': 1}, a dict"),
        (lambda: scaled(circle()), "lists inside each other"),
        (lambda: scaled(object), "it holds <class 'object'>"),
        (lambda: mg.tensor(2**70) + 0.5, "it holds 1180591620717411303424, a int"),
        (lambda: Tensor(np.zeros(2, np.longdouble), None) + 0.5, "'constant_1': it holds"),
        (lambda: mg.tensor(2**62) * mg.tensor(2**62), "more than 64 bits"),
    ],
)
def test_what_a_file_cannot_hold_is_named(make, message, path):
    with pytest.raises(FileFormatError) as caught:
        save(mg.Graph(make()), path)
    assert message in str(caught.value)
    assert not path.exists()


def test_a_parameter_of_a_dtype_that_no_file_holds_is_named(path):
    with pytest.raises(FileFormatError, match=r"the array 'W' holds .*float.*convert it"):
        write_arrays(path, {"W": np.zeros(2, np.longdouble)}, "model", {})


def test_a_graph_that_could_not_be_read_back_is_not_written(path):
    W = mg.parameter([1.0, 2.0], name="W")
    net = mg.Graph(y=W * 2.0)
    save(net, path)
    before = path.read_bytes()
    W.value = np.zeros(3)
    with pytest.raises(FileFormatError, match=r"net.safetensors' was not written.*shape \(2,\).*record the graph anew"):
        save(net, path)
    assert path.read_bytes() == before


def test_only_a_graph_can_be_saved(path):
    with pytest.raises(OperandTypeError, match="save takes a Graph, not Tensor"):
        save(mg.tensor(1.0), path)


def test_a_description_too_large_for_the_format_is_not_written(path, monkeypatch):
    monkeypatch.setattr(files_arrays, "LARGEST_HEADER", 1000)
    with pytest.raises(FileFormatError, match=r"takes \d+ bytes, and safetensors holds 1000"):
        save(NETWORKS["rnn"](), path)
    assert not path.exists()


# --- operations of the user -------------------------------------------------------------------------------


@pytest.fixture
def declared(monkeypatch):
    """A table of operations that a test may add to."""
    kept = dict(DECLARED)
    yield DECLARED
    DECLARED.clear()
    DECLARED.update(kept)


def declare_cube():
    @mg.primitive(vjp=lambda g, out, x: g * 3 * x * x)
    def files_cube(x):
        return x * x * x

    return files_cube


def test_an_operation_of_the_user_loads_once_it_is_declared(path, declared):
    cube = declare_cube()
    net = mg.Graph(y=cube(mg.parameter([2.0], name="w")))
    found = there_and_back(net, path)
    assert_same_graph(found, net)
    found.backward(np.ones(1))
    assert found["w"].grad == 12.0

    del declared["files_cube"]
    with pytest.raises(FileFormatError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{str(path)!r} cannot be read: the file uses the operation 'files_cube', which this program does not know: "
        "declare it with mg.primitive before loading, if you trust it"
    )

    cube = declare_cube()
    assert load(path)["y"].primitive is cube.primitive


def test_all_unknown_operations_are_named_at_once(path, declared):
    save(mg.Graph(declare_cube()(mg.parameter(1.0))), path)
    header, arrays = header_of(path)
    node = next(node for node in header["nodes"] if node["kind"] == "operation")
    header["nodes"].append(dict(node, op="files_other"))
    del declared["files_cube"]
    with pytest.raises(FileFormatError, match=r"operations 'files_cube', 'files_other', which .* declare them with"):
        load(written(path, header, arrays))


def test_an_operation_of_the_user_does_not_replace_one_of_microgrid(path, declared):
    own = mg.tanh.primitive

    @mg.primitive(vjp=lambda g, out, x: g)
    def tanh(x):
        raise AssertionError("not this one")

    assert declared["tanh"] is own
    found = there_and_back(mg.Graph(y=mg.tanh(mg.parameter(0.5))), path)
    assert found["y"].value == math.tanh(0.5)

    @mg.primitive(vjp=lambda g, out, x: g)
    def sinh(x):
        return x

    mine = Primitive("tanh", lambda x: x)
    with pytest.raises(FileFormatError, match=r"another operation is declared by the name 'tanh'.*rename it"):
        save(mg.Graph(record(mine, (1.0,))), path)


def test_the_newest_operation_of_a_name_is_the_users(path, declared):
    first, second = declare_cube(), declare_cube()
    assert declared["files_cube"] is second.primitive
    save(mg.Graph(second(1.0)), path)
    with pytest.raises(FileFormatError, match="files_cube"):
        save(mg.Graph(first(1.0)), path)


def test_an_operation_written_in_c_is_saved(path, declared):
    cosh = Primitive("files_cosh", np.cosh, vjps=(lambda g, out, x: g * np.sinh(x),))
    net = mg.Graph(y=record(cosh, (mg.parameter([2.0]),)), n=record(Primitive("files_max", max), ([1.0], [2.0])))
    assert_same_graph(there_and_back(net, path), net)


def test_both_delays_are_told_apart(path):
    net = mg.Graph(record(DELAY, (1.0,)), record(DELAY_BACK, (2.0,)))
    assert [node.primitive for node in there_and_back(net, path).outputs] == [DELAY, DELAY_BACK]


def test_an_operation_of_the_user_that_fails_gives_the_error_of_files(path, declared):
    save(mg.Graph(declare_cube()(mg.parameter(1.0))), path)

    @mg.primitive()
    def files_cube(x):
        raise KeyError("what")

    with pytest.raises(FileFormatError, match=r"node 1 cannot be computed \('what'\)"):
        load(path)


# --- writing ----------------------------------------------------------------------------------------------


class FullDisk:
    def __init__(self, path, mode):
        self.file = open(path, mode)  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "stand_in", "error"),
    [
        (whole, "open", FullDisk, OSError),
        (whole.os, "fsync", full, OSError),
        (whole.os, "replace", full, OSError),
        (whole.os, "fsync", interrupted, KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_older_file_and_nothing_else(owner, name, stand_in, error, path, monkeypatch):
    net = NETWORKS["rnn"]()
    save(net, path)
    before = path.read_bytes()
    net["W"].value = net["W"].value + 1.0
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stand_in, raising=False)
        with pytest.raises(error) as caught:
            save(net, path)
    if error is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_data_is_on_the_disk_before_it_takes_its_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(whole.os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1])
    write_whole(path, b"all of it")
    assert calls[:2] == ["fsync", "replace"]
    assert path.read_bytes() == b"all of it"


def test_a_folder_that_cannot_be_synchronised_does_no_harm(path, monkeypatch):
    real = os.fsync

    def only_files(descriptor):
        return full() if stat.S_ISDIR(os.fstat(descriptor).st_mode) else real(descriptor)

    monkeypatch.setattr(whole.os, "fsync", only_files)
    write_whole(path, b"all of it")
    assert path.read_bytes() == b"all of it"


def test_a_missing_folder_and_a_folder_as_target_are_named(tmp_path):
    net = NETWORKS["scalar"]()
    with pytest.raises(FileNotFoundError) as caught:
        save(net, tmp_path / "nowhere" / "net")
    assert caught.value.filename == str(tmp_path / "nowhere" / "net")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as caught:
        save(net, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
    assert not os.listdir(tmp_path / "folder")


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=r"net\.safetensors"):
        save(NETWORKS["scalar"](), locked / "net.safetensors")


def test_a_path_may_be_text(path):
    NETWORKS["scalar"]().save(str(path))
    assert len(load(str(path))) == 6


# --- files that are no models -----------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_never_opened(path):
    bomb = path.with_name("exploded")
    path.write_bytes(pickle.dumps(Bomb(bomb)))
    with pytest.raises(FileFormatError, match="it looks like a pickle, which runs code"):
        load(path)
    assert not bomb.exists()


def npz(path):
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    return path.with_suffix(".npz").read_bytes()


def npy(path):
    np.save(path.with_suffix(".npy"), np.zeros(3))
    return path.with_suffix(".npy").read_bytes()


def shell(header, data=b""):
    """A safetensors file with this header, whatever it is."""
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"x", "it is no safetensors file, or one that was cut short"),
        (b"hello, world! " * 10, "it is no safetensors file"),
        (npz, "it looks like a zip archive, as np.savez and torch.save write them"),
        (npy, "it looks like one array of np.save"),
        (b"\x89HDF\r\n" + bytes(100), "it looks like HDF5"),
        (b"\x1f\x8b" + bytes(100), "it looks compressed with gzip"),
        (shell(b"{}"), "a safetensors file of 0 arrays, but without microgrid's description"),
        (shell(b'{"__metadata__":{"format":"pt"}}'), "Write models with graph.save"),
        (shell(b'{"__metadata__":null}'), "without microgrid's description"),
        (shell(b"null"), "no safetensors file"),
        (shell(b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}', bytes(2)), "BF16"),
        (shell(b'{"a":{"dtype":"F64","shape":[0,18446744073709551615],"data_offsets":[0,0]}}'), "cannot be read"),
        (
            shell(
                b'{"__metadata__":{"microgrid":"{}"},"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', bytes(8)
            ),
            "save it anew",  # newer releases of safetensors know complex numbers
        ),
        (safetensors.numpy.save({"W": np.zeros(3)}), "a safetensors file of 1 arrays, but without"),
        ((2**63).to_bytes(8, "little") + bytes(100), "no safetensors file"),
        (shell(b'{"__metadata__":{"microgrid":' + b"[" * 10000 + b"}}"), "no safetensors file"),
    ],
)
def test_what_a_file_is_instead_is_said(content, message, path):
    path.write_bytes(content(path) if callable(content) else content)
    with pytest.raises(FileFormatError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{str(path)!r} cannot be read: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON that can be read"),
        ("[]", "the header is not an object, but a list"),
        ("{", "no JSON that can be read"),
        ("[" * 100_000, "no JSON that can be read"),
        ("9" * 10_000, "no JSON that can be read"),
        ('{"version": NaN}', "NaN is no number of JSON"),
        ('{"version": 1, "version": 1}', "a key occurs twice"),
        ("{}", "the header has no field 'version'"),
        ('{"version": 1.0}', "the field 'version' of the header is not a whole number, but 1.0"),
        ('{"version": true}', "is not a whole number, but True"),
        ('{"version": 0}', "version 0"),
        ('{"version": 2}', "by a later microgrid: its format has version 2, and this one reads version 1. Update"),
        ('{"version": 2, "unheard": "of"}', "by a later microgrid"),
        ('{"version": 1, "kind": "checkpoint", "content": {}}', "it holds a checkpoint, not a model"),
        ('{"version": 1, "kind": 3}', "the field 'kind' of the header is not a string, but 3"),
        ('{"version": 1, "kind": "model", "content": []}', "'content' of the header is not an object, but a list"),
        ('{"version": 1, "kind": "model", "content": {}, "more": 1}', "a field 'more', which has no meaning"),
        ('{"version": 1, "kind": "model", "content": {}}', "the description has no field 'nodes'"),
    ],
)
def test_a_header_that_is_none_is_refused(text, message, path):
    path.write_bytes(safetensors.numpy.save({}, metadata={"microgrid": text}))
    with pytest.raises(FileFormatError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_at_once(path):
    os.mkfifo(path)
    with pytest.raises(FileFormatError, match="no ordinary file"):
        load(path)


@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error_of_the_system(path):
    save(NETWORKS["scalar"](), path)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"net\.safetensors"):
        load(path)


def test_a_file_cut_anywhere_is_refused(path):
    save(NETWORKS["lstm"](), path)
    data = path.read_bytes()
    for end in {*range(0, len(data), 97), len(data) - 1}:
        path.write_bytes(data[:end])
        with pytest.raises(FileFormatError, match="cannot be read"):
            load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(FileFormatError, match="cannot be read"):
        load(path)


def test_a_byte_changed_anywhere_gives_a_graph_or_the_error_of_files(path):
    save(NETWORKS["learnable_start"](), path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        try:
            assert isinstance(load(path), mg.Graph)
        except FileFormatError:
            refused += 1
    assert refused > 200


# --- hostile descriptions ---------------------------------------------------------------------------------


def header_of(path):
    arrays, header = read_arrays(path, "model")
    return header, arrays


def written(path, header, arrays):
    write_arrays(path, arrays, "model", header)
    return path


def node_of(header, **wanted):
    return next(node for node in header["nodes"] if wanted.items() <= node.items())


def victim():
    x, h = mg.input(np.ones(3), name="x"), mg.state(mg.parameter(np.ones(3), name="h0"), name="h")
    h.next = mg.tanh(x + h[::-1] * mg.parameter(np.full(3, 0.5), name="w"))
    return mg.Graph(loss=mg.time_sum(mg.sum(h.next)) * 2.0 + 10)


def change(where, key, value):
    """A change to the first node like `where`."""
    return lambda header, arrays: node_of(header, **where).update({key: value})


OPERATION = {"kind": "operation", "op": "tanh"}
STATE = {"kind": "state"}
INPUT = {"kind": "input"}
GETITEM = {"op": "getitem"}
HOSTILE = {
    "no nodes": (lambda header, arrays: header.update(nodes=[]), "no node uses the array '#0'"),
    "nodes are no list": (lambda header, arrays: header.update(nodes={}), "'nodes' of the description is not a list"),
    "a node is no object": (lambda header, arrays: header["nodes"].insert(0, 3), "node 0 is not an object, but 3"),
    "a node without a kind": (lambda header, arrays: header["nodes"][0].pop("kind"), "node 0 has no field 'kind'"),
    "an unknown kind": (change(INPUT, "kind", "output"), "of the kind 'output', which does not exist"),
    "a kind that is none": (change(INPUT, "kind", ["input"]), "is not a string, but a list"),
    "an unknown field": (change(INPUT, "shape", [3]), "has a field 'shape', which has no meaning"),
    "a name that is no string": (change(INPUT, "name", 3), "is not a string, but 3"),
    "two nodes of one name": (change(INPUT, "name", "h"), "two nodes are named 'h'"),
    "an operand too far": (change(OPERATION, "operands", [999]), "node 999, and there are"),
    "an operand before the first": (change(OPERATION, "operands", [-1]), "node -1, and there are"),
    "an operand that is itself": (
        lambda header, arrays: node_of(header, **OPERATION).update(
            operands=[header["nodes"].index(node_of(header, **OPERATION))]
        ),
        "before it",
    ),
    "an operand that is no number": (change(OPERATION, "operands", [True]), "node True"),
    "an operand that is a fraction": (change(OPERATION, "operands", [1.0]), "node 1.0"),
    "no operands": (change(OPERATION, "operands", []), "tanh, has 0 operands"),
    "an operand too many": (change(OPERATION, "operands", [0, 0]), "tanh, has 2 operands"),
    "operands that are no list": (change(OPERATION, "operands", 0), "is not a list, but 0"),
    "a setting that it does not have": (change(OPERATION, "settings", {"axis": 0}), "takes the settings [], and not"),
    "a setting that it lacks": (change({"op": "sum"}, "settings", {"axis": None}), "takes the settings ['axis', 'keep"),
    "an axis that is none": (
        change({"op": "sum"}, "settings", {"axis": 7, "keepdims": False}),
        "cannot be computed (sum(",
    ),
    "an axis of text": (change({"op": "sum"}, "settings", {"axis": "x", "keepdims": False}), "cannot be computed"),
    "another axis": (change({"op": "sum"}, "settings", {"axis": 0, "keepdims": True}), "should be of shape ()"),
    "another shape": (change(OPERATION, "shape", [4]), "should be of shape (4,) and dtype 'float64', but computes"),
    "another dtype": (change(OPERATION, "dtype", "float32"), "but computes shape (3,) and dtype float64"),
    "a shape of text": (change(OPERATION, "shape", ["3"]), "no list of whole numbers"),
    "an unknown form": (change(GETITEM, "settings", {"template": {"pickle": []}}), "begins with 'pickle' is no value"),
    "two forms": (change(GETITEM, "settings", {"template": {"slot": [0], "tuple": []}}), "is no value"),
    "no form": (change(GETITEM, "settings", {"template": {}}), "is no value"),
    "half a slice": (change(GETITEM, "settings", {"template": {"slice": [1]}}), "the form 'slice' cannot be made"),
    "a slot before the first": (change(GETITEM, "settings", {"template": {"slot": [-1]}}), "'slot' cannot be made"),
    "a slot too far": (change(GETITEM, "settings", {"template": {"slot": [4]}}), "cannot be computed"),
    "an index of text": (change(GETITEM, "settings", {"template": "sort"}), "cannot be computed"),
    "settings too deep": (
        change(GETITEM, "settings", {"template": json.loads("[" * 50 + "]" * 50)}),
        "inside each other, more than 20 deep",
    ),
    "a whole number too large": (change(GETITEM, "settings", {"template": 10**30}), "more than 64 bits"),
    "a missing array": (change(INPUT, "value", {"array": ["nowhere"]}), "there is no array 'nowhere'"),
    "an array used twice": (change(INPUT, "value", {"array": ["w"]}), "or it is used twice"),
    "an array left over": (lambda header, arrays: arrays.update(more=np.zeros(3)), "no node uses the array 'more'"),
    "an array of another shape": (lambda header, arrays: arrays.update(w=np.zeros((2, 2))), "cannot be computed"),
    "an array of another dtype": (lambda header, arrays: arrays.update(h0=np.zeros(3, int)), "can have none"),
    "an order that is none": (change(INPUT, "value", {"array": ["#0", "spiral"]}), "is no order"),
    "a leaf of text": (change(INPUT, "value", "ones"), "is no number and no array"),
    "a leaf of nothing": (change(INPUT, "value", None), "is no number and no array"),
    "a gradient of integers": (
        lambda header, arrays: node_of(header, kind="constant", value=10).update(grad=True),
        "is to have a gradient, and can have none",
    ),
    "a gradient that is no truth": (change(INPUT, "grad", 1), "is not true or false, but 1"),
    "a next too far": (change(STATE, "next", 999), "the next of a state is said to be node 999"),
    "a next of another shape": (
        lambda header, arrays: node_of(header, **STATE).update(next=header["named"]["loss"]),
        "a state cannot have its next",
    ),
    "an initial value that comes later": (change(STATE, "initial", 12), "the initial value of node"),
    "an initial value that changes": (
        lambda header, arrays: node_of(header, **STATE).update(initial=header["nodes"].index(node_of(header, **INPUT))),
        "its nodes are no graph",
    ),
    "a direction that is none": (change(STATE, "reverse", "no"), "is not true or false, but 'no'"),
    "settings of a leaf that has none": (change(INPUT, "settings", {"rate": 0.5}), "has the settings ['rate']"),
    "an output too far": (lambda header, arrays: header.update(outputs=[999]), "an output is said to be node 999"),
    "no outputs": (lambda header, arrays: header.update(outputs=[], named={}), "needs at least one output"),
    "an output called self": (lambda header, arrays: header.update(named={"self": 0}), "its nodes are no graph"),
    "a node that no output needs": (
        lambda header, arrays: header.update(named={"loss": 0}),
        "not in the order of a graph, or no output depends on some",
    ),
    "nodes in another order": (
        lambda header, arrays: header["nodes"].insert(0, {"kind": "constant", "value": 1, "grad": False}),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_description_is_refused(what, path):
    save(victim(), path)
    header, arrays = header_of(path)
    make_hostile, message = HOSTILE[what]
    make_hostile(header, arrays)
    with pytest.raises(FileFormatError) as caught:
        load(written(path, header, arrays))
    assert str(caught.value).startswith(f"{str(path)!r} cannot be read: ")
    assert message in str(caught.value)
    assert "save it anew, or take another copy" in str(caught.value)


ONE, INDEX = ({"kind": "constant", "value": value, "grad": False} for value in (1.0, 0))
MANY, FAR_TOO_MANY = 2**25, 2**40


def operation(op, operands, shape=(1,), dtype="float64", **given_settings):
    described = {"kind": "operation", "op": op, "operands": list(operands), "shape": list(shape), "dtype": dtype}
    return {**described, "grad": False, "settings": given_settings}


def spread(shape, of=0, dtype="float64"):
    """A view of a number that takes no memory."""
    made = operation("broadcast_to", [of], dtype=dtype, shape=shape)
    return {**made, "settings": {"shape": {"tuple": list(shape)}}}


def outer(op, first=(MANY, 1), second=(1, MANY), **given_settings):
    return [ONE, spread(first), spread(second), operation(op, [1, 2], **given_settings)]


GREEDY = {  # files of a thousand bytes
    "a view": [ONE, spread([FAR_TOO_MANY])],
    "a border": [
        ONE,
        spread([1]),
        operation("pad", [1], pad_width=FAR_TOO_MANY, mode="constant", constant_values=0),
    ],
    "an outer sum": outer("add"),
    "an outer choice": [ONE, spread([MANY, 1]), spread([1, MANY]), operation("where", [1, 2, 2])],
    "an outer product": outer("matmul"),
    "a long product": [ONE, spread([2**12, 2**12]), operation("matmul", [1, 1], shape=[2**12, 2**12])],
    "an outer einsum": outer("einsum", inputs={"tuple": ["ab", "cd"]}, output=""),
    "an outer sum over time": outer("time_sum"),
    "an outer product over time": outer("time_matmul", first=(1, MANY)),
    "outer indices": [
        *(ONE, INDEX, spread([2, 2]), spread([MANY, 1], 1, "int64"), spread([1, MANY], 1, "int64")),
        {
            **operation("getitem", [2, 3, 4]),
            "settings": {"template": {"tuple": [{"slot": [0]}, {"slot": [1]}]}},
        },
    ],
    "a row again and again": [
        *(ONE, INDEX, spread([1, MANY]), spread([MANY], 1, "int64")),
        operation("take", [2, 3], axis=0),
    ],
    "a row looked up again and again": [
        *(ONE, INDEX, spread([1, MANY]), spread([MANY], 1, "int64")),
        operation("lookup", [2, 3]),
    ],
    "a row indexed again and again": [
        *(ONE, INDEX, spread([1, MANY]), spread([MANY], 1, "int64")),
        operation("getitem", [2, 3], template={"slot": [0]}),
    ],
    "a table": [ONE, INDEX, operation("add_rows", [0, 1], rows=FAR_TOO_MANY)],
    "a table over time": [ONE, INDEX, operation("time_add_rows", [0, 1], rows=FAR_TOO_MANY)],
    "places": [ONE, INDEX, operation("place", [0, 1], count=FAR_TOO_MANY)],
    "a scatter": [
        ONE,
        {**operation("scatter_add", [0]), "settings": {"shape": {"tuple": [FAR_TOO_MANY]}, "template": 0}},
    ],
    "digits": [dict(INDEX, value=7), dict(INDEX, value=2**62), operation("power", [0, 1], dtype="int64")],
    "the same array again and again": [ONE, spread([MANY]), operation("concatenate", [1] * 100, axis=0)],
    "many operations": [ONE, spread([MANY]), *(operation("flip", [i], shape=[MANY], axis=0) for i in range(1, 9))],
}


@pytest.mark.parametrize("what", GREEDY)
def test_a_small_file_that_asks_for_too_much_is_refused_before_it_is_computed(what, path):
    nodes = [{key: value for key, value in node.items() if value != {}} for node in GREEDY[what]]
    header = {"nodes": nodes, "outputs": [len(nodes) - 1], "named": {}}
    with pytest.raises(FileFormatError, match=r"elements, and 2.7e\+08 are allowed for a file of its size") as caught:
        load(written(path, header, {}))
    assert f"node {len(nodes) - 1}, {nodes[-1]['op']}" in str(caught.value) or what == "many operations"


def test_what_may_be_computed_can_be_said(path):
    save(victim(), path)
    with pytest.raises(FileFormatError, match=r"1.0e\+01 are allowed.*If you trust it, load it with a larger max_work"):
        load(path, max_work=10)
    assert_same_graph(load(path, max_work=1000), victim())


def test_every_rule_of_work_is_of_an_operation():
    assert {name for name in RULES if name not in DECLARED} == set()


# --- descriptions that anybody may have written -------------------------------------------------------------

SMALL_NETWORKS = ["learnable_start", "embedding", "odd_delays", "normalised", "bidirectional"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from([2**31, 2**63, -(2**70), 10**400, 0.5, 1e308, "", "W", "add", "#1", "float64", "state", "next"])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tuple", "slice", "slot", "array", "number", "dtype", "op"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


def places_in(value, place=()):
    """Where something stands in JSON, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places_in(inner)


def mutate(data, header):
    """Put something else somewhere, or take it away, or swap or repeat it."""
    places = list(places_in(header))
    if not places:
        return
    where, key = data.draw(st.sampled_from(places))
    what = data.draw(st.sampled_from(["replace", "nudge", "remove", "copy", "repeat"]))
    if what == "replace":
        where[key] = data.draw(JSON)
    elif what == "nudge" and type(where[key]) in (int, bool):
        where[key] = where[key] + data.draw(st.integers(-2, 2)) if type(where[key]) is int else not where[key]
    elif what == "remove":
        del where[key]
    elif what == "copy":
        there, other = data.draw(st.sampled_from(places))
        where[key] = copy.deepcopy(there[other]) if other in there or isinstance(there, list) else None
    elif what == "repeat" and isinstance(where, list):
        where.insert(key, copy.deepcopy(where[key]))


def resolved(value, arrays):
    """A description with its arrays in place of their keys: two that are equal describe one graph."""
    if isinstance(value, list):
        return [resolved(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    form, parts = next(iter(value.items()), (None, None))
    if form in ("array", "number", "element"):
        array = np.asarray(arrays[parts[0]])
        if form == "array":
            return [array.shape, array.dtype.name, parts[1:], array.tobytes().hex()]
        return array.item() if form == "number" else {"scalar": [array.dtype.name, array.item()]}
    silent = [("name", None), ("settings", {})]  # written out, they say no more than when they are left out
    return {key: resolved(item, arrays) for key, item in value.items() if (key, item) not in silent}


@pytest.mark.parametrize("name", SMALL_NETWORKS)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_description_gives_its_graph_or_the_error_of_files(name, data):
    header, arrays = description_of(NETWORKS[name]())
    header = json.loads(json.dumps(header))
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(data, header)
    try:
        found = graph_of(header, dict(arrays), "somewhere", max_work=10**6)
    except FileFormatError:
        return
    again, new_arrays = description_of(found)
    assert json.dumps(resolved(again, new_arrays), sort_keys=True) == json.dumps(
        resolved(header, arrays), sort_keys=True
    )
