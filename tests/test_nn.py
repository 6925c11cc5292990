"""Layers against PyTorch, hand-written loops and the unrolled graph; their names, their dropout, and own cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled import assert_compiled_is_unrolled, assert_same
from torch_values.make_values import (
    CELLS,
    CLASSES,
    FILE,
    HIDDEN,
    INPUT,
    RECURRENT,
    TOKENS,
    operands,
    sequence,
    slopes,
)

import microgrid as mg
import viz
from microgrid import nn
from microgrid.errors import (
    CausalityError,
    MicrogridError,
    OperandError,
    OperandTypeError,
    SequenceError,
    StateError,
    UnknownNameError,
)

TORCH = np.load(FILE)
LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
STATES = {"rnn": ["h"], "lstm": ["h", "c"], "gru": ["h"]}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def example(batch=2, features=3, dtype=np.float64, name="x"):
    return mg.input(np.zeros((batch, features), dtype), name=name)


def linear(inputs, outputs, rng=0, **given):
    return nn.Linear(inputs, outputs, rng=rng, dtype=np.float64, **given)


def spread(module, seed=1):
    """The module with no parameter left at 0 or 1, so that none can hide."""
    rng = np.random.default_rng(seed)
    for parameter in module.parameters():
        parameter.value = rng.uniform(-0.9, 0.9, parameter.shape).astype(parameter.dtype)
    return module


def names_in(net, nodes):
    return [net.names[node] for node in nodes]


# --- PyTorch ----------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """The network of make_values.py."""

    def __init__(self):
        self.body = {
            "embed": nn.Embedding(TOKENS, INPUT, dtype=np.float64),
            "lstm": nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True, dtype=np.float64),
            "norm": nn.LayerNorm(2 * HIDDEN, dtype=np.float64),
        }
        self.heads = [linear(2 * HIDDEN, CLASSES) for _ in range(2)]

    def forward(self, tokens):
        h = self.body["norm"](self.body["lstm"](self.body["embed"](tokens)))
        return self.heads[0](h) + mg.tanh(self.heads[1](h))


MODULES = {
    **{
        name: lambda case=case: getattr(nn, case.kind)(
            INPUT, HIDDEN, case.layers, bidirectional=case.bidirectional, dtype=np.float64, **case.settings
        )
        for name, case in RECURRENT.items()
    },
    **{kind: lambda kind=kind: getattr(nn, kind)(INPUT, HIDDEN, dtype=np.float64) for kind in CELLS},
    "linear": lambda: linear(INPUT, HIDDEN),
    "linear without bias": lambda: linear(INPUT, HIDDEN, bias=False),
    "layer norm": lambda: nn.LayerNorm(INPUT, dtype=np.float64),
    "layer norm eps": lambda: nn.LayerNorm(INPUT, eps=0.1, dtype=np.float64),
    "embedding": lambda: nn.Embedding(TOKENS, HIDDEN, dtype=np.float64),
    "sequential": lambda: nn.Sequential(
        linear(INPUT, HIDDEN), mg.tanh, nn.LayerNorm(HIDDEN, dtype=np.float64), linear(HIDDEN, 2)
    ),
    "tagger": Tagger,
}


def of_torch(name, kind):
    """The arrays that PyTorch gave for a module: its "state" or its "grad"."""
    start = f"{name}/{kind}/"
    return {key.removeprefix(start): TORCH[key] for key in TORCH.files if key.startswith(start)}


def in_torch_layout(module, gradients):
    """Gradients by parameter under PyTorch's keys, without those of its second biases that microgrid has not."""
    before = module.state_dict()
    module.load_state_dict({name: gradients[node] for name, node in module.named_parameters().items()})
    found = module.to_torch()
    module.load_state_dict(before)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_outputs_and_gradients_are_those_of_pytorch(name):
    module = MODULES[name]().from_torch(of_torch(name, "state"))
    given = operands()["classes"] if name in ("embedding", "tagger") else sequence()
    x = mg.input(given[0], name="x")
    y = module(x)
    slope = mg.input(np.zeros(y.shape), name="slope")
    loss = mg.Graph(loss=mg.time_sum(mg.sum(y * slope)))
    expected = TORCH[f"{name}/output"]
    sequences = {"x": given, "slope": slopes(*expected.shape)}
    values = mg.compile(mg.Graph(y), wrt=())(x=given).value
    dag = loss.unroll(sequences)
    dag.backward()
    run = mg.compile(loss)(sequences)
    np.testing.assert_allclose(mg.Graph(y).unroll(x=given).values(y), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13)
    for gradients in ({p: p.grad for p in module.parameters()}, {p: run.grads[p] for p in module.parameters()}):
        found = in_torch_layout(module, gradients)
        for key, value in of_torch(name, "grad").items():
            at = slice(None)
            if "bias_hh" in key:  # of the second biases microgrid has the last third of a GRU's alone
                at = slice(2 * HIDDEN, None) if "gru" in name.lower() else slice(0, 0)
            np.testing.assert_allclose(found[key][at], value[at], rtol=1e-12, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", MODULES)
def test_what_came_from_pytorch_goes_back_with_its_keys_and_shapes(name):
    given = of_torch(name, "state")
    module = MODULES[name]().from_torch(given)
    back = module.to_torch()
    assert list(back) == list(given)
    assert {key: each.shape for key, each in back.items()} == {key: each.shape for key, each in given.items()}
    for key in given:
        if "bias_hh" not in key and "bias_ih" not in key:
            assert np.array_equal(back[key], given[key]), key
    for key in (key for key in given if "bias_ih" in key):  # of two biases that are added, the sum counts
        added = slice(0, 2 * HIDDEN) if "gru" in name.lower() else slice(None)
        own = slice(2 * HIDDEN, None) if "gru" in name.lower() else slice(0, 0)
        other = key.replace("bias_ih", "bias_hh")
        np.testing.assert_allclose((back[key] + back[other])[added], (given[key] + given[other])[added], rtol=1e-15)
        assert np.array_equal(back[key][own], given[key][own])
        assert np.array_equal(back[other][own], given[other][own])
    again = MODULES[name]().from_torch(back)
    assert_same(again.state_dict(), module.state_dict(), rtol=0)
    first = next(iter(back))
    back[first][...] = 7  # copies, not views
    assert not np.any(module.to_torch()[first] == 7)


def test_from_torch_changes_nothing_unless_all_fits():
    lstm = nn.LSTM(3, 4, rng=0)
    before, good = lstm.state_dict(), lstm.to_torch()
    zeros = {key: np.zeros_like(value) for key, value in good.items()}
    without = {key: value for key, value in zeros.items() if key != "bias_hh_l0"}
    for bad, error, match in (
        ({}, UnknownNameError, "'weight_ih_l0'"),
        (without, UnknownNameError, "'bias_hh_l0'"),
        ({**zeros, "weight_ih_l1": np.zeros((16, 4))}, UnknownNameError, "'weight_ih_l1'"),
        ({**zeros, "bias_hh_l0": np.zeros(4)}, OperandError, r"'bias_hh_l0' has shape \(4,\).*\(16,\)"),
        ({**zeros, "weight_ih_l0": np.zeros((3, 16))}, OperandError, r"'weight_ih_l0' has shape \(3, 16\).*\(16, 3\)"),
        ({**zeros, "weight_hh_l0": np.zeros((16, 4), complex)}, OperandTypeError, "complex"),
    ):
        with pytest.raises(error, match=match):
            lstm.from_torch(bad)
        assert_same(lstm.state_dict(), before, rtol=0)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.LSTM(3, 4, peepholes=True), "peepholes"),
        (nn.GRU(3, 4, reset_after=False), "reset_after=True"),
        (nn.Sequential(nn.GRU(3, 4, reset_after=False)), "reset_after=True"),
    ],
)
def test_layers_that_pytorch_has_not_say_so(module, match):
    with pytest.raises(OperandError, match=match):
        module.to_torch()
    with pytest.raises(OperandError, match=match):
        module.from_torch({})


# --- against loops written by hand ------------------------------------------------------------------------


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_by_hand(p, xs):
    h = c = np.zeros((xs.shape[1], len(p["U"])))
    found = []
    for x in xs:
        z_i, z_f, z_o, z_g = np.split(x @ p["W"] + h @ p["U"] + p["b"], 4, axis=1)
        c = sigmoid(z_f + p["P_f"] * c) * c + sigmoid(z_i + p["P_i"] * c) * np.tanh(z_g)
        h = sigmoid(z_o + p["P_o"] * c) * np.tanh(c)
        found.append(h)
    return np.stack(found)


def gru_by_hand(p, xs):
    h = np.zeros((xs.shape[1], len(p["U"])))
    found = []
    for x in xs:
        (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (np.split(p[key], 3, axis=-1) for key in "WUb")
        r, z = sigmoid(x @ W_r + h @ U_r + b_r), sigmoid(x @ W_z + h @ U_z + b_z)
        h = (1 - z) * np.tanh(x @ W_n + b_n + (r * h) @ U_n) + z * h
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.LSTM(3, 4, peepholes=True, rng=0, dtype=np.float64), lstm_by_hand),
        (nn.GRU(3, 4, reset_after=False, rng=0, dtype=np.float64), gru_by_hand),
    ],
)
def test_variants_are_their_formulas_in_a_loop(layer, by_hand):
    spread(layer)
    x, xs = example(), numbers(6, 2, 3)
    y = layer(x)
    values = {name.split(".")[-1]: value for name, value in layer.state_dict().items()}
    np.testing.assert_allclose(mg.compile(mg.Graph(y), wrt=())(x=xs).value, by_hand(values, xs), rtol=1e-12)
    assert_compiled_is_unrolled(mg.Graph(y), {"x": xs}, 6)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_central_differences(kind, both):
    layer = spread(LAYERS[kind](2, 2, bidirectional=both, dtype=np.float64))
    x = example(1, 2)
    y = layer(x)
    step = mg.compile(mg.time_sum(mg.sum(y * y)), wrt=[*layer.parameters(), x])
    xs, h = numbers(3, 1, 2), 1e-6
    run = step(x=xs)
    for parameter in layer.parameters():
        expected = np.zeros(parameter.shape)
        for at in np.ndindex(parameter.shape):
            ends = []
            for side in (h, -h):
                parameter.value[at] += side
                ends.append(float(step(x=xs).value))
                parameter.value[at] -= side
            expected[at] = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(run.grads[parameter], expected, rtol=1e-6, atol=1e-8, err_msg=parameter.name)


def test_layers_without_time_have_the_gradients_of_central_differences():
    tokens = np.array([0, 2, 2])
    for layer in (linear(3, 2), nn.LayerNorm(3, dtype=np.float64)):
        spread(layer)
        mg.check_gradients(lambda x, *_, layer=layer: mg.sum(layer(x) ** 3), numbers(4, 3))
    norm, embedding = nn.LayerNorm(3, dtype=np.float64), nn.Embedding(4, 3, rng=0, dtype=np.float64)
    loss = mg.sum(norm(embedding(tokens)) ** 3)
    loss.backward()
    for parameter in (norm.gain, norm.bias, embedding.E):
        given = np.array(parameter.value)
        found = np.zeros(parameter.shape)
        for at in np.ndindex(parameter.shape):
            for side in (1e-6, -1e-6):
                parameter.value[at] = given[at] + side
                found[at] += float(mg.sum(norm(embedding(tokens)) ** 3)) / (2 * side)
            parameter.value[at] = given[at]
        np.testing.assert_allclose(parameter.grad, found, rtol=1e-6, atol=1e-7)


# --- structure --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_records_one_cycle_per_cell_and_its_picture_names_the_states(kind, layers, both):
    net = mg.Graph(LAYERS[kind](3, 4, layers, bidirectional=both, rng=0)(example()))
    assert len(net.cycles) == layers * (1 + both)
    directions = ["forwards.", "backwards."] if both else [""]
    numbered = [f"{kind}.{layer}." if layers > 1 else f"{kind}." for layer in range(layers)]
    expected = [[f"{at}{way}{state}" for state in STATES[kind]] for at in numbered for way in directions]
    assert sorted(sorted(names_in(net, cycle.states)) for cycle in net.cycles) == sorted(map(sorted, expected))
    assert {net.names[s] for s in net.states if s.reverse} == {
        name for cell in expected for name in cell if "backwards" in name
    }
    drawn = viz.draw(net).render("svg").decode()
    for name in names_in(net, net.states):
        assert name in drawn, name


@pytest.mark.parametrize(("layers", "both"), [(2, False), (1, True)])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_can_be_drawn_before_and_after_unrolling(kind, layers, both):
    net = mg.Graph(LAYERS[kind](3, 4, layers, bidirectional=both, rng=0)(example()))
    drawn = viz.before_after(net, steps=2).render("svg").decode()
    assert all(name in drawn for name in names_in(net, net.states))


def test_a_network_of_layers_without_a_recurrence_has_no_cycle():
    net = mg.Graph(nn.Sequential(linear(3, 4), nn.LayerNorm(4), mg.tanh, linear(4, 1))(example()))
    assert net.cycles == []
    assert net.states == ()


def stack_of(draw_kinds, features, hidden, dtype, rng):
    """Layers one after the other, each taking what the one before puts out."""
    layers = []
    for kind, count, both in draw_kinds:
        if kind == "norm":
            layers.append(nn.LayerNorm(features, dtype=dtype))
        elif kind == "dropout":
            layers.append(nn.Dropout(0))
        elif kind == "linear":
            layers.append(nn.Linear(features, hidden, rng=rng, dtype=dtype))
            features = hidden
        else:
            settings = {"peepholes": True} if kind == "peephole lstm" else {}
            settings |= {"reset_after": False} if kind == "reset-before gru" else {}
            settings |= {"nonlinearity": "relu"} if kind == "relu rnn" else {}
            make = LAYERS[kind.split()[-1]]
            layers.append(make(features, hidden, count, bidirectional=both, rng=rng, dtype=dtype, **settings))
            features = hidden * (1 + both)
    return nn.Sequential(*layers)


KINDS = ["rnn", "relu rnn", "lstm", "peephole lstm", "gru", "reset-before gru", "norm", "dropout", "linear"]


@settings(deadline=None, max_examples=14)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 2), st.booleans()), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.float64]),
    recorded=st.sampled_from([1, 3]),
    batch=st.integers(1, 4),
    steps=st.integers(1, 5),
    features=st.integers(1, 3),
    hidden=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_compiled_stack_equals_the_unrolled_one(kinds, dtype, recorded, batch, steps, features, hidden, seed):
    rng = np.random.default_rng(seed)
    stack = spread(stack_of(kinds, features, hidden, dtype, rng), seed)
    net = mg.Graph(stack(example(recorded, features, dtype)))
    xs = rng.normal(size=(steps, batch, features)).astype(dtype)
    rtol, least = (1e-10, 1e-3) if dtype == np.float64 else (2e-4, 1e-3)
    if dtype == np.float32 and "norm" in {kind for kind, *_ in kinds}:
        least = 1e-2  # of what a norm lets through nearly nothing, rounding of what it cancels is all that is left
    assert_compiled_is_unrolled(net, {"x": xs}, steps, rtol=rtol, least=least)
    assert net.output.dtype == dtype


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("recorded", [1, 3])
def test_a_layer_serves_every_batch_and_length(kind, recorded):
    layer = spread(LAYERS[kind](3, 4, 2, bidirectional=True, dtype=np.float64))
    h = layer(example(recorded))
    step = mg.compile(mg.time_mean(mg.mean(h * h)))
    for batch, steps in ((3, 2), (1, 1), (5, 4), (1, 6), (3, 3)):
        xs = numbers(steps, batch, 3, seed=batch)
        alone = [step(x=xs[:, k : k + 1]).value for k in range(batch)]
        np.testing.assert_allclose(step(x=xs).value, np.mean(alone), rtol=1e-12)
        dag = mg.Graph(mg.time_mean(mg.mean(h * h))).unroll(x=xs)
        np.testing.assert_allclose(step(x=xs).value, dag.output.value, rtol=1e-12)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_with_lengths_each_sequence_is_as_if_alone(kind, both):
    layer = spread(LAYERS[kind](3, 4, 2, bidirectional=both, dtype=np.float64))
    h = layer(example(3))
    loss = mg.Graph(total=mg.time_sum(mg.sum(h * h)))
    xs, lengths = numbers(5, 3, 3), [5, 2, 1]
    run = mg.compile(loss)(x=xs, lengths=lengths)
    alone = [mg.compile(loss)(x=xs[:n, k : k + 1]) for k, n in enumerate(lengths)]
    np.testing.assert_allclose(run.value, sum(each.value for each in alone), rtol=1e-12)
    assert_same(dict(run.grads), {name: sum(each.grads[name] for each in alone) for name in run.grads})
    expected = {name: np.concatenate([each.state[name] for each in alone]) for name in run.state}
    assert_same(run.state, expected)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("every", [1, 3, 50])
def test_checkpoints_change_no_number(kind, every):
    h = spread(LAYERS[kind](3, 4, 2, dtype=np.float64))(example())
    loss = mg.Graph(mg.time_mean(mg.mean(h * h)) + mg.mean(mg.last(h)))
    xs = numbers(8, 2, 3)
    whole, parts = mg.compile(loss)(x=xs), mg.compile(loss, checkpoint_every=every)(x=xs)
    np.testing.assert_allclose(parts.value, whole.value, rtol=1e-12)
    assert_same(dict(parts.grads), dict(whole.grads))
    assert_same(parts.state, whole.state)


@pytest.mark.parametrize("kind", LAYERS)
def test_windows_with_the_state_carried_and_a_stream_give_what_one_run_gives(kind):
    h = spread(LAYERS[kind](3, 4, 2, dtype=np.float64))(example())
    values, xs = mg.compile(mg.Graph(h), wrt=()), numbers(6, 2, 3)
    whole = values(x=xs)
    first = values(x=xs[:2])
    second = values(x=xs[2:], initial=first.state)
    np.testing.assert_allclose(np.concatenate([first.value, second.value]), whole.value, rtol=1e-12)
    assert_same(second.state, whole.state)
    stream = values.stream()
    np.testing.assert_allclose(np.stack([stream(x=x) for x in xs]), whole.value, rtol=1e-12)
    assert_same(stream.state, whole.state)
    halfway = values.stream(initial=first.state)
    np.testing.assert_allclose(np.stack([halfway(x=x) for x in xs[2:]]), whole.value[2:], rtol=1e-12)


def test_what_reads_the_sequence_from_its_end_cannot_be_streamed():
    with pytest.raises(CausalityError, match=r"lstm\.backwards\.[hc]"):
        mg.compile(mg.Graph(nn.LSTM(3, 4, bidirectional=True)(example())), wrt=()).stream()


def test_a_decoder_reads_what_an_encoder_ended_with():
    x, xs = example(), numbers(4, 2, 3)
    end = mg.last(spread(nn.LSTM(3, 4, dtype=np.float64))(x))
    net = mg.Graph(spread(nn.GRU(4, 2, dtype=np.float64))(end))
    assert len(net.cycles) == 2
    assert_compiled_is_unrolled(net, {"x": xs}, 4)


@pytest.mark.parametrize("layer", [*LAYERS.values(), nn.Recurrent])
def test_a_recurrent_layer_on_what_never_varies_is_refused(layer):
    made = layer(nn.RNNCell, 3, 4) if layer is nn.Recurrent else layer(3, 4)
    with pytest.raises(OperandError, match=r"recurrent.*same at all timesteps.*mg\.input"):
        made(np.zeros((2, 3)))


# --- names ------------------------------------------------------------------------------------------------


def test_two_layers_of_a_kind_in_one_graph_are_numbered_in_order():
    first, second = nn.LSTM(3, 4), nn.LSTM(4, 5)
    net = mg.Graph(second(first(example())))
    assert [net.names[node] for node in (first.cells[0][0].W, second.cells[0][0].W)] == ["lstm_1.W", "lstm_2.W"]
    assert sorted(names_in(net, net.states)) == ["lstm_1.c", "lstm_1.h", "lstm_2.c", "lstm_2.h"]
    assert set(mg.compile(net, wrt=())(x=numbers(2, 2, 3)).state) == set(names_in(net, net.states))


def test_sequential_numbers_the_layers_of_a_kind_and_leaves_the_only_one_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 4, 2), nn.LayerNorm(4), nn.Linear(4, 4), mg.tanh, nn.Linear(4, 1))
    assert list(net.state_dict()) == [
        *("linear_1.W", "linear_1.b"),
        *(f"lstm.{layer}.{name}" for layer in (0, 1) for name in "WUb"),
        *("layernorm.gain", "layernorm.bias", "linear_2.W", "linear_2.b", "linear_3.W", "linear_3.b"),
    ]
    graph = mg.Graph(net(example()))
    assert set(names_in(graph, graph.parameters)) == set(net.state_dict())
    assert list(net.to_torch())[:3] == ["0.weight", "0.bias", "1.weight_ih_l0"]
    assert len(net) == 6
    assert net[4] is mg.tanh
    assert next(iter(net)) is net[0]


class Net(nn.Module):
    def __init__(self):
        self.encoder = linear(3, 3)
        self.layers = [linear(3, 3), linear(3, 3)]
        self.heads = {"mean": linear(3, 2), "scale": linear(3, 2)}
        self.gain = mg.parameter(np.ones(2))
        self.inner = nn.Sequential(linear(2, 2), mg.tanh, linear(2, 2))

    def forward(self, x):
        x = self.encoder(x)
        for layer in self.layers:
            x = mg.tanh(layer(x))
        return self.inner(self.heads["mean"](x) + self.heads["scale"](x)) * self.gain


def test_modules_in_attributes_lists_and_dictionaries_are_named_after_them():
    module = Net()
    parts = ["encoder", "layers.0", "layers.1", "heads.mean", "heads.scale", "inner.linear_1", "inner.linear_2"]
    assert list(module.state_dict()) == ["gain", *(f"{part}.{name}" for part in parts for name in "Wb")]
    graph = mg.Graph(module(example()))
    assert set(names_in(graph, graph.parameters)) == set(module.state_dict())
    assert set(mg.compile(mg.time_mean(mg.mean(module(example()))))(x=numbers(2, 2, 3)).grads) == set(
        module.state_dict()
    )
    assert [p.name for p in module.parameters()][:2] == ["gain", "encoder.W"]
    assert len(set(module.parameters())) == len(module.parameters()) == 15


def test_parameters_in_a_list_or_dictionary_are_the_modules():
    class Mixture(nn.Module):
        def __init__(self):
            self.weights = [mg.parameter(np.ones(3)) for _ in range(2)]
            self.scales = {"a": mg.parameter(np.ones(3))}

        def forward(self, x):
            return x * self.weights[0] * self.weights[1] * self.scales["a"]

    module = Mixture()
    assert list(module.state_dict()) == ["weights.0", "weights.1", "scales.a"]
    assert set(mg.Graph(module(example())).parameters) == set(module.parameters())


def test_modules_appended_to_a_list_after_it_was_set_have_names_and_parameters_of_their_own():
    class Grown(nn.Module):
        def __init__(self):
            self.layers = []
            for _ in range(2):
                self.layers.append(linear(3, 3))

        def forward(self, x):
            return self.layers[1](self.layers[0](x))

    module = Grown()
    assert len(module.parameters()) == len(module.state_dict()) == 4
    graph = mg.Graph(module(example()))
    assert set(names_in(graph, graph.parameters)) == set(module.state_dict())


def test_two_modules_whose_parameters_were_named_by_hand_are_told_apart():
    class Scale(nn.Module, called="scale"):
        def __init__(self):
            self.w = mg.parameter(np.ones(3), name="weights")

        def forward(self, x):
            return x * self.w

    net = nn.Sequential(Scale(), Scale())
    assert len(net.state_dict()) == 2
    assert len(mg.Graph(net(example())).parameters) == 2


def test_a_layer_made_inside_a_scope_has_the_scopes_name_before_its_own():
    with mg.scope("encoder"):
        lstm = nn.LSTM(3, 4, 2, bidirectional=True)
        readout = linear(8, 1)
    names = [f"encoder.lstm.{n}.{way}.{p}" for n in (0, 1) for way in ("forwards", "backwards") for p in "WUb"]
    assert list(lstm.state_dict()) == names
    graph = mg.Graph(readout(lstm(example())))
    assert set(names_in(graph, graph.parameters)) == {*names, "encoder.linear.W", "encoder.linear.b"}


def test_a_subclass_of_a_layer_is_called_as_the_layer_is():
    class Wide(nn.LSTM):
        pass

    assert list(Wide(3, 4).state_dict()) == ["lstm.W", "lstm.U", "lstm.b"]


def test_named_gives_parameters_and_states_the_name():
    lstm = nn.LSTM(3, 4, 2).named("encoder")
    graph = mg.Graph(lstm(example()))
    assert all(name.startswith("encoder.") for name in names_in(graph, [*graph.parameters, *graph.states]))
    net = nn.Sequential(nn.Linear(3, 4).named("into"), nn.Linear(4, 2).named("out"))
    assert list(net.state_dict()) == ["into.W", "into.b", "out.W", "out.b"]
    with pytest.raises(OperandTypeError, match="string"):
        lstm.named(3)


def test_a_module_called_twice_shares_its_weights_and_not_its_states():
    rnn = spread(nn.RNN(3, 3, dtype=np.float64))
    once, xs = rnn(example()), numbers(4, 2, 3)
    twice = mg.Graph(rnn(once))
    assert len(twice.parameters) == 3
    assert len(twice.states) == len(twice.cycles) == 2
    assert len(set(names_in(twice, twice.states))) == 2
    assert_compiled_is_unrolled(twice, {"x": xs}, 4)
    middle = mg.compile(mg.Graph(once), wrt=())(x=xs).value
    np.testing.assert_allclose(
        mg.compile(twice, wrt=())(x=xs).value, mg.compile(mg.Graph(once), wrt=())(x=middle).value, rtol=1e-12
    )


def test_a_module_set_under_two_names_and_a_tied_weight_count_once():
    class Tied(nn.Module):
        def __init__(self):
            self.embed = nn.Embedding(5, 3, rng=0, dtype=np.float64)
            self.again = self.embed
            self.out = mg.parameter(np.zeros(5))

        def forward(self, tokens):
            return self.again(tokens) @ mg.transpose(self.embed.E) + self.out

    module = Tied()
    assert list(module.state_dict()) == ["out", "embed.E"]
    tokens = mg.input(np.zeros(2, int), name="tokens")
    assert_compiled_is_unrolled(mg.Graph(module(tokens)), {"tokens": np.array([[0, 1], [4, 4]])}, 2)


def test_state_dict_is_a_copy_and_load_state_dict_takes_it_back():
    module, other = spread(Net(), 1), spread(Net(), 2)
    values = module.state_dict()
    other.load_state_dict(values)
    assert_same(other.state_dict(), values, rtol=0)
    values["gain"][...] = 77
    assert not np.any(module.gain.value == 77)
    assert not np.any(other.gain.value == 77)
    x, xs = example(), numbers(3, 2, 3)
    found = [mg.compile(mg.Graph(each(x)), wrt=())(x=xs).value for each in (module, other)]
    assert np.array_equal(*found)


def test_a_compiled_network_runs_with_values_loaded_later():
    module = spread(Net(), 1)
    net, xs = mg.Graph(module(example())), numbers(3, 2, 3)
    step = mg.compile(net, wrt=())
    before = step(x=xs).value
    module.load_state_dict({name: value * 2 for name, value in module.state_dict().items()})
    after = step(x=xs).value
    np.testing.assert_allclose(after, net.unroll(x=xs).values(net.output), rtol=1e-12)
    assert not np.allclose(after, before)


def test_load_state_dict_is_strict_and_changes_nothing_on_error():
    module = spread(Net())
    before = module.state_dict()
    zeros = {name: np.zeros_like(value) for name, value in before.items()}
    for bad, error, match in (
        ({}, UnknownNameError, "'gain'"),
        ({name: value for name, value in zeros.items() if name != "layers.1.b"}, UnknownNameError, r"'layers\.1\.b'"),
        ({**zeros, "layers.2.b": np.zeros(3)}, UnknownNameError, r"'layers\.2\.b'.*Did you mean 'layers\.[01]\.b'"),
        ({**zeros, "heads.scale.b": np.zeros(3)}, OperandError, r"'heads\.scale\.b' has shape \(2,\).*\(3,\)"),
        ({**zeros, "gain": np.zeros(2, complex)}, OperandTypeError, "complex"),
        ({**zeros, "gain": ["a", "b"]}, OperandTypeError, "real numbers"),
    ):
        with pytest.raises(error, match=match):
            module.load_state_dict(bad)
        assert_same(module.state_dict(), before, rtol=0)


@pytest.mark.parametrize("value", [3.5, 3, np.float32(3.5), np.array(3.5)])
@pytest.mark.parametrize("start", [2.0, np.array(2.0), np.array(2.0, np.float32)])
def test_a_parameter_that_is_one_number_is_loaded_as_others_are(start, value):
    class Scale(nn.Module):
        def __init__(self):
            self.s = mg.parameter(start)

    module = Scale()
    kind, dtype = type(module.s.value), module.s.dtype
    module.load_state_dict({"s": value})
    assert np.shape(module.s.value) == ()
    assert module.s.value == float(value)
    assert type(module.s.value) is kind
    assert module.s.dtype == dtype
    module.load_state_dict(module.state_dict())
    assert module.s.value == float(value)


def test_values_are_loaded_in_the_dtype_of_the_parameter():
    module = nn.Linear(2, 2)
    module.load_state_dict({"linear.W": np.eye(2, dtype=int), "linear.b": mg.tensor([1.0, 2.0])})
    assert module.W.dtype == module.b.dtype == np.float32
    assert module(np.ones((1, 2))).value.tolist() == [[2, 3]]


# --- dropout ----------------------------------------------------------------------------------------------


def dropped(rate=0.5, batch=2, features=3, rng=0, **given):
    """A dropout over an input, as a graph, and a loss of it that can be differentiated."""
    y = nn.Dropout(rate, rng=rng, **given)(example(batch, features))
    return mg.Graph(y), mg.Graph(loss=mg.time_sum(mg.sum(y * mg.parameter(1.0, name="w"))))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_drops_at_its_rate_and_scales_up_what_it_keeps(rate, dtype):
    y = nn.Dropout(rate, rng=0)(example(1, 20, dtype))
    found = mg.Graph(y).unroll(x=np.ones((50, 40, 20), dtype)).values(y)
    kept = found != 0
    assert found.dtype == dtype
    np.testing.assert_allclose(found[kept], 1 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / found.size)
    assert abs(np.mean(~kept) - rate) < 4 * deviation
    for axis in range(3):  # and no timestep, sequence or feature is favoured
        others = tuple({0, 1, 2} - {axis})
        share = np.mean(~kept, axis=others)
        assert np.max(np.abs(share - rate)) < 5 * deviation * np.sqrt(found.shape[axis])


def test_masks_of_timesteps_sequences_and_runs_differ():
    net, _ = dropped(0.5, 2, 30)
    xs = np.ones((3, 2, 30))
    first, second = (net.unroll(x=xs).values(net.output) for _ in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0, 0], first[0, 1])


def test_same_over_time_draws_one_mask_for_all_timesteps_of_a_sequence():
    net, loss = dropped(0.5, 2, 30, same_over_time=True)
    found = net.unroll(x=np.ones((4, 2, 30))).values(net.output)
    assert np.all(found == found[0])
    assert not np.array_equal(found[0, 0], found[0, 1])
    assert 0.2 < np.mean(found[0] == 0) < 0.8
    step = mg.compile(loss, wrt=["x"])
    slopes = step(x=np.ones((4, 2, 30))).grads["x"]
    assert np.all(slopes == slopes[0])
    assert not np.array_equal(step(x=np.ones((4, 2, 30))).grads["x"], slopes)


def test_the_same_seed_draws_the_same_masks_unrolled_and_compiled():
    xs = numbers(4, 5, 3)
    _, loss = dropped(rng=7)
    _, again = dropped(rng=7)
    expected = [loss.unroll(x=xs).output.value for _ in range(3)]
    step = mg.compile(again)
    assert len(set(map(float, expected))) == 3
    np.testing.assert_allclose([step(x=xs).value for _ in range(3)], expected, rtol=1e-12)


def test_layers_that_share_a_generator_repeat_bit_for_bit():
    def train(seed):
        rng = np.random.default_rng(seed)
        net = nn.Sequential(nn.Linear(3, 4, rng=rng), nn.Dropout(0.3, rng=rng), nn.LSTM(4, 4, 2, dropout=0.2, rng=rng))
        h = net(example(dtype=np.float32))
        step, xs = mg.compile(mg.time_mean(mg.mean(h * h))), numbers(4, 2, 3).astype(np.float32)
        return [step(x=xs).value for _ in range(3)], step(x=xs).grads["linear.W"]

    (first, slopes), (second, same), (third, _) = train(0), train(0), train(1)
    assert first == second
    assert np.array_equal(slopes, same)
    assert first != third


def test_nothing_is_dropped_where_no_gradient_is_computed():
    net, loss = dropped(0.9, 2, 50)
    xs = np.ones((3, 2, 50))
    assert np.all(mg.compile(net, wrt=())(x=xs).value == 1)
    assert mg.compile(loss, wrt=())(x=xs).value == 300
    assert mg.compile(loss)(x=xs).value != 300
    assert np.all(mg.compile(net, wrt=()).stream()(x=xs[0]) == 1)


def test_nothing_is_dropped_inside_no_grad():
    net, loss = dropped(0.9, 2, 50)
    step, xs = mg.compile(loss), np.ones((3, 2, 50))
    with mg.no_grad():
        assert np.all(net.unroll(x=xs).values(net.output) == 1)
        assert np.all(nn.Dropout(0.9, rng=0)(np.ones(50)).value == 1)
        assert step(x=xs).value == 300


@pytest.mark.parametrize("kind", ["wrt", "stream", "no_grad"])
def test_evaluating_draws_no_number_from_the_generator(kind):
    rng = np.random.default_rng(0)
    net, _ = dropped(0.5, rng=rng)
    before = rng.bit_generator.state
    if kind == "no_grad":
        with mg.no_grad():
            net.unroll(x=np.ones((3, 2, 3)))
    elif kind == "wrt":
        mg.compile(net, wrt=())(x=np.ones((3, 2, 3)))
    else:
        mg.compile(net, wrt=()).stream()(x=np.ones((2, 3)))
    assert rng.bit_generator.state == before


def test_given_masks_are_used_unrolled_and_compiled():
    h = spread(nn.LSTM(3, 4, 2, dropout=0.5, rng=0, dtype=np.float64))(nn.Dropout(0.5, rng=0)(example()))
    net = mg.Graph(loss=mg.time_mean(mg.mean(h * h)))
    assert names_in(net, net.inputs) == ["x", "dropout.mask", "lstm.dropout.mask"]
    masks = {"dropout.mask": numbers(4, 5, 3), "lstm.dropout.mask": numbers(4, 5, 4)}
    assert_compiled_is_unrolled(net, {"x": numbers(4, 5, 3, seed=3), **masks}, 4)
    nothing = mg.compile(net)({"x": numbers(4, 5, 3), **{name: np.zeros_like(m) for name, m in masks.items()}})
    assert not np.any(nothing.grads["lstm.0.W"])


def test_two_dropouts_and_one_called_twice_have_masks_of_their_own():
    d = nn.Dropout(0.5, rng=0)
    for y in (d(d(example(1, 40))), nn.Dropout(0.5, rng=0)(nn.Dropout(0.5, rng=1)(example(1, 40)))):
        net = mg.Graph(y)
        assert len(net.inputs) == 3
        found = net.unroll(x=np.ones((20, 1, 40))).values(y)
        assert set(np.unique(found)) == {0.0, 4.0}
        assert abs(np.mean(found == 0) - 0.75) < 0.08


def test_a_rate_of_0_records_nothing():
    x = example()
    for rate in (0, 0.0):
        assert nn.Dropout(rate)(x) is x
    net = mg.Graph(nn.LSTM(3, 4, 2)(x))
    assert names_in(net, net.inputs) == ["x"]


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 1.5, float("nan"), True, "0.5", None])
def test_a_rate_that_is_no_probability_below_1_is_refused(rate):
    with pytest.raises(OperandError, match="from 0 to below 1"):
        nn.Dropout(rate)


@pytest.mark.parametrize("rate", [np.float32(0.5), np.float64(0.5)])
def test_a_rate_may_be_a_number_of_numpy(rate):
    assert nn.Dropout(rate).rate == 0.5


def test_dropout_between_layers_needs_layers():
    for layer in LAYERS.values():
        with pytest.raises(OperandError, match="only one"):
            layer(3, 4, dropout=0.5)
        with pytest.raises(OperandError, match="rate"):
            layer(3, 4, 2, dropout=1.5)


def test_dropout_with_lengths_drops_in_what_there_is():
    _, loss = dropped(0.5, 2, 40)
    run = mg.compile(loss, wrt="x")(x=np.ones((4, 2, 40)), lengths=[4, 1])
    assert np.all(run.grads["x"][1:, 1] == 0)
    assert set(np.unique(run.grads["x"][:, 0])) == {0.0, 2.0}
    assert run.value == np.sum(run.grads["x"])


@pytest.mark.parametrize("recorded", [1, 2])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_dropout_follows_the_given_batch(recorded, batch):
    net, loss = dropped(0.5, recorded, 30)
    xs = np.ones((3, batch, 30))
    found = net.unroll(x=xs).values(net.output)
    assert found.shape == xs.shape
    assert len({row.tobytes() for step in found for row in step}) == 3 * batch  # no mask is shared
    slopes = mg.compile(loss, wrt="x")(x=xs).grads["x"]
    assert slopes.shape == xs.shape
    assert len({row.tobytes() for step in slopes for row in step}) == 3 * batch
    tokens = mg.input(np.zeros(recorded, int), name="tokens")
    y = nn.Dropout(0.5, rng=0)(nn.Embedding(5, 4)(tokens))
    assert mg.Graph(y).unroll(tokens=np.zeros((3, batch), int)).values(y).shape == (3, batch, 4)


@pytest.mark.parametrize(
    "reshaped",
    [
        lambda x: mg.transpose(x),
        lambda x: mg.concatenate([x, x], axis=0),
        lambda x: mg.reshape(x, (-1, 1)),
        lambda x: mg.mean(x, axis=0),
        lambda x: mg.expand_dims(x, 0),
    ],
    ids=["transposed", "joined", "one column", "mean of the batch", "an axis before"],
)
@pytest.mark.parametrize("batch", [3, 5])
def test_dropout_of_what_has_its_batch_elsewhere(reshaped, batch):
    y = nn.Dropout(0.5, rng=0)(reshaped(example(3, 3)))
    xs = numbers(4, batch, 3)
    expected = np.stack([reshaped(mg.tensor(x)).value for x in xs])
    assert mg.Graph(y).unroll(x=xs).values(y).shape == expected.shape
    run = mg.compile(mg.time_sum(mg.sum(y * mg.parameter(1.0, name="w"))), wrt="x")(x=xs)
    assert np.isfinite(run.value)
    np.testing.assert_allclose(mg.compile(mg.Graph(y), wrt=())(x=xs).value, expected)


def test_dropout_of_the_last_timestep_leaves_one_value_for_the_sequence():
    y = nn.Dropout(0.5, rng=0)(mg.last(example(1, 40)))
    loss = mg.sum(y * mg.parameter(1.0, name="w"))
    net = mg.Graph(loss)
    assert net.output not in net.varying
    xs = np.ones((3, 4, 40))
    runs = [mg.Graph(y).unroll(x=xs).output.value for _ in range(2)]
    assert set(np.unique(runs)) == {0.0, 2.0}
    assert not np.array_equal(*runs)
    assert mg.compile(loss, wrt="x")(x=xs).grads["x"].shape == xs.shape
    assert mg.compile(net, wrt=())(x=xs).value == 160


def test_dropout_of_a_weight_in_a_network_is_drawn_at_each_run_and_not_in_evaluation():
    W = mg.parameter(np.ones((30, 30)), name="W")
    loss = mg.time_sum(mg.sum(example(1, 30) @ nn.Dropout(0.5, rng=0)(W)))
    xs = np.ones((2, 1, 30))
    assert mg.compile(loss, wrt=())(x=xs).value == 2 * 900
    step = mg.compile(loss)
    assert step(x=xs).value != step(x=xs).value


def test_eager_dropout_draws_at_once_and_lets_the_gradient_through_what_it_kept():
    x = mg.tensor(np.ones(1000))
    y = nn.Dropout(0.5, rng=0)(x)
    mg.sum(y).backward()
    assert np.array_equal(x.grad, y.value)
    assert set(np.unique(y.value)) == {0.0, 2.0}


@pytest.mark.parametrize("value", [np.arange(4), np.ones(4, bool)])
def test_dropout_of_whole_numbers_is_refused(value):
    for x in (mg.input(value, name="tokens"), value):
        with pytest.raises(OperandTypeError, match=str(value.dtype)):
            nn.Dropout(0.25, rng=0)(x)


def test_a_network_with_dropout_can_be_unrolled_for_drawing():
    net = mg.Graph(nn.LSTM(3, 4, 2, dropout=0.5, rng=0)(example()))
    dag = net.unroll(steps=3)
    assert dag.steps == 3
    assert viz.draw(dag).render("svg")
    assert viz.before_after(net, steps=3).render("svg")


def test_steps_cut_the_sequences_of_a_network_with_dropout():
    net, loss = dropped()
    xs = np.ones((5, 4, 3))
    assert net.unroll(x=xs, steps=2).values(net.output).shape == (2, 4, 3)
    assert mg.compile(loss, wrt="x")(x=xs, steps=2).grads["x"].shape == (2, 4, 3)


def test_sequences_of_a_network_with_dropout_may_be_lists():
    net, loss = dropped()
    rows = [np.ones((4, 3)) for _ in range(3)]
    for each in (rows, [mg.tensor(row) for row in rows], [row.tolist() for row in rows], mg.tensor(np.stack(rows))):
        assert net.unroll(x=each).values(net.output).shape == (3, 4, 3)
        assert mg.compile(loss, wrt="x")(x=each).grads["x"].shape == (3, 4, 3)


@pytest.mark.parametrize("given", [{"x": 3.0}, {"x": "abc"}, {"x": []}, {"y": np.ones((3, 2, 3))}, {"x": None}])
def test_wrong_sequences_are_refused_with_dropout_as_without(given):
    net, loss = dropped()
    plain = mg.Graph(loss=mg.time_sum(mg.sum(example() * mg.parameter(1.0, name="w"))))
    for run in (lambda net: net.unroll(given), lambda net: mg.compile(net)(given)):
        with pytest.raises(MicrogridError) as without:
            run(plain)
        with pytest.raises(type(without.value)) as found:
            run(loss)
        assert str(found.value).split(".")[0] == str(without.value).split(".")[0]
    with pytest.raises(SequenceError, match="'x'"):
        net.unroll({"dropout.mask": np.ones((3, 2, 3))})


def test_checkpoints_go_back_with_the_masks_they_came_with():
    xs, h = numbers(9, 2, 3), spread(nn.RNN(3, 4, 2, dropout=0.5, rng=5, dtype=np.float64))(example())
    k = spread(nn.RNN(3, 4, 2, dropout=0.5, rng=5, dtype=np.float64))(example())
    whole, parts = (mg.time_mean(mg.mean(each * each)) for each in (h, k))
    found, expected = mg.compile(parts, checkpoint_every=2)(x=xs), mg.compile(whole)(x=xs)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
    assert_same(dict(found.grads), dict(expected.grads))


# --- cells of one's own -----------------------------------------------------------------------------------


class MinimalGate(nn.Cell):
    """The docstring's, in a dtype of choice."""

    def __init__(self, input_size, hidden_size, rng=None, dtype=np.float64):
        self.hidden_size = hidden_size
        self.W = mg.parameter(nn.init.glorot((input_size, 2 * hidden_size), rng, dtype, gates=2))
        self.U = mg.parameter(nn.init.orthogonal((hidden_size, 2 * hidden_size), rng, dtype, gates=2))

    def step(self, x, h):
        forget, new = mg.split(x @ self.W + h @ self.U, 2, axis=-1)
        f = mg.sigmoid(forget)
        return f * h + (1 - f) * mg.tanh(new)


class Velocity(nn.Cell):
    """Two states of one size."""

    states = ("position", "velocity")

    def __init__(self, size):
        self.hidden_size, self.k = size, mg.parameter(np.full(size, 0.3))

    def step(self, x, position, velocity):
        velocity = velocity - self.k * position + x
        return position + velocity, velocity


def test_a_minimal_gate_is_its_formula_in_a_loop():
    cell, xs = MinimalGate(3, 4, 0), numbers(5, 2, 3)
    found = mg.compile(mg.Graph(cell(example(1))), wrt=())(x=xs).value
    h = np.zeros((2, 4))
    for x, value in zip(xs, found, strict=True):
        z = x @ cell.W.value + h @ cell.U.value
        f = sigmoid(z[:, :4])
        h = f * h + (1 - f) * np.tanh(z[:, 4:])
        np.testing.assert_allclose(value, h, rtol=1e-12)


def test_a_cell_with_two_states_of_one_size_keeps_them_apart():
    cell, xs = Velocity(3), numbers(5, 2, 3)
    net = mg.Graph(cell(example()))
    assert sorted(names_in(net, net.states)) == ["position", "velocity"]
    run = mg.compile(net, wrt=())(x=xs)
    position = velocity = np.zeros((2, 3))
    for x, value in zip(xs, run.value, strict=True):
        velocity = velocity - 0.3 * position + x
        position = position + velocity
        np.testing.assert_allclose(value, position, rtol=1e-12)
    np.testing.assert_allclose(run.state["velocity"], velocity, rtol=1e-12)
    assert_compiled_is_unrolled(net, {"x": xs}, 5)


def test_own_cells_are_stacked_and_run_both_ways():
    layers = nn.Recurrent(MinimalGate, 3, 4, num_layers=2, bidirectional=True, dropout=0.0, rng=0)
    assert len(layers.parameters()) == 8
    assert list(layers.state_dict())[:3] == [
        "recurrent.0.forwards.W",
        "recurrent.0.forwards.U",
        "recurrent.0.backwards.W",
    ]
    net = mg.Graph(layers(example()))
    assert len(net.cycles) == 4
    assert_compiled_is_unrolled(net, {"x": numbers(4, 5, 3)}, 4)


def test_the_two_directions_of_one_cell_change_places_when_time_is_turned_round():
    turned = nn.Recurrent(MinimalGate, 3, 4, bidirectional=True, rng=0)
    y = turned(example())
    both = mg.compile(mg.Graph(y), wrt=())
    forwards, backwards = turned.cells[0]
    forwards.load_state_dict(dict(zip(forwards.state_dict(), backwards.state_dict().values(), strict=True)))
    xs = numbers(4, 2, 3)
    there, back = both(x=xs).value, both(x=xs[::-1]).value[::-1]
    np.testing.assert_allclose(there[..., :4], back[..., 4:], rtol=1e-12)
    np.testing.assert_allclose(there[..., 4:], back[..., :4], rtol=1e-12)


@pytest.mark.parametrize("returned", ["none", "number", "array", "too few", "too many", "text"])
def test_a_step_that_returns_something_else_than_its_states_says_what_it_should_return(returned):
    class Wrong(nn.Cell):
        states = ("h", "c")
        hidden_size = 3

        def step(self, x, h, c):
            return {
                "none": None,
                "number": 3.0,
                "array": np.zeros((2, 3)),
                "too few": h + x,
                "too many": (h, c, x),
                "text": "h",
            }[returned]

    with pytest.raises(OperandTypeError, match=r"Wrong\.step returns the next of each of its states, h, c: 2 tensors"):
        Wrong()(example())


def test_a_next_state_of_another_shape_is_refused_with_the_states_name_and_both_shapes():
    class Wrong(nn.Cell):
        hidden_size = 4

        def step(self, x, h):
            return mg.tanh(x)

    with pytest.raises(StateError, match=r"\(2, 3\).*'h' starts with shape \(2, 4\)"):
        Wrong()(example())


def test_a_cell_without_a_size_or_a_step_says_what_to_write():
    class Sizeless(nn.Cell):
        def step(self, x, h):
            return h

    class Stepless(nn.Cell):
        hidden_size = 3

    with pytest.raises(OperandError, match=r"Sizeless.*set self\.hidden_size"):
        Sizeless()(example())
    with pytest.raises(NotImplementedError, match="Stepless defines no step"):
        Stepless()(example())


def test_a_single_state_may_be_given_as_one_name():
    class One(nn.Cell):
        states = "memory"
        hidden_size = 3

        def step(self, x, memory):
            return mg.tanh(x + memory)

    net = mg.Graph(One()(example()))
    assert names_in(net, net.states) == ["memory"]


@pytest.mark.parametrize("given", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("own", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [*LAYERS, "linear", "norm", "minimal gate"])
def test_layers_compute_in_the_dtype_of_their_parameters(kind, own, given):
    layer = {
        "linear": lambda: nn.Linear(3, 4, rng=0, dtype=own),
        "norm": lambda: nn.LayerNorm(3, dtype=own),
        "minimal gate": lambda: MinimalGate(3, 4, 0, own),
        **{name: lambda name=name: LAYERS[name](3, 4, rng=0, dtype=own) for name in LAYERS},
    }[kind]()
    y = layer(mg.input(np.zeros((2, 3), given), name="x"))
    assert y.dtype == own
    run = mg.compile(mg.time_mean(mg.mean(y * y)))(x=np.arange(12).reshape(2, 2, 3).astype(given))
    assert run.value.dtype == own
    assert {gradient.dtype for gradient in run.grads.values()} == {np.dtype(own)}


# --- where weights start ----------------------------------------------------------------------------------


def test_glorot_reaches_its_bound_and_not_beyond_with_each_gate_a_layer_of_its_own():
    W = nn.init.glorot((40, 60), rng=0, dtype=np.float64)
    bound = np.sqrt(6 / 100)
    assert 0.98 * bound < np.max(np.abs(W)) <= bound
    assert abs(np.std(W) - bound / np.sqrt(3)) < 0.01 * bound
    gated = nn.init.glorot((40, 240), rng=0, dtype=np.float64, gates=4)
    for part in np.split(gated, 4, axis=1):
        assert 0.98 * bound < np.max(np.abs(part)) <= bound


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (6, 3), (3, 6), (1, 1), (1, 5)])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_orthogonal_is_so_for_each_gate_and_gates_differ(rows, columns, gates):
    U = nn.init.orthogonal((rows, gates * columns), rng=0, dtype=np.float64, gates=gates)
    parts = np.split(U, gates, axis=1)
    for part in parts:
        product = part.T @ part if rows >= columns else part @ part.T
        np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-12)
    if rows * columns > 1:
        assert len({part.tobytes() for part in parts}) == gates


def test_rotations_are_drawn_evenly():
    """Without the signs of R, the first entry of the first column would be negative each time."""
    rng = np.random.default_rng(0)
    first = [nn.init.orthogonal((3, 3), rng, np.float64)[0, 0] for _ in range(200)]
    assert 0.35 < np.mean(np.array(first) > 0) < 0.65
    assert abs(np.mean(np.square(first)) - 1 / 3) < 0.08


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_start_as_they_say(kind):
    layer = LAYERS[kind](5, 6, rng=0, dtype=np.float64)
    (cell,) = layer.cells[0]
    gates = cell.gates
    assert np.max(np.abs(cell.W.value)) <= np.sqrt(6 / 11)
    for part in np.split(cell.U.value, gates, axis=1):
        np.testing.assert_allclose(part @ part.T, np.eye(6), atol=1e-12)
    expected = np.zeros(6 * gates)
    if kind == "lstm":
        expected[6:12] = 1
    assert np.array_equal(cell.b.value, expected)
    if kind == "lstm":
        assert np.all(nn.LSTM(2, 3, forget_bias=0.0).cells[0][0].b.value == 0)


def test_a_shared_generator_repeats_bit_for_bit_and_a_seed_is_a_generator():
    def make(rng):
        return nn.Sequential(
            nn.Embedding(5, 3, rng=rng), nn.GRU(3, 4, 2, bidirectional=True, rng=rng), nn.Linear(8, 2, rng=rng)
        ).state_dict()

    first, second = make(np.random.default_rng(0)), make(np.random.default_rng(0))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["gru.0.forwards.W"], first["gru.0.backwards.W"])
    assert np.array_equal(nn.Linear(3, 2, rng=7).W.value, nn.Linear(3, 2, rng=np.random.default_rng(7)).W.value)
    assert not np.array_equal(nn.Linear(3, 2).W.value, nn.Linear(3, 2).W.value)


def test_a_seed_draws_the_same_weights_in_either_precision():
    single, double = (nn.LSTM(3, 4, rng=0, dtype=dtype).state_dict() for dtype in (np.float32, np.float64))
    assert all(np.array_equal(single[name], double[name].astype(np.float32)) for name in single)


@pytest.mark.parametrize("rng", ["seed", 1.5, -1, np.random, object()])
def test_what_is_no_generator_or_seed_is_refused(rng):
    for make in (
        lambda: nn.LSTM(3, 4, rng=rng),
        lambda: nn.Dropout(0.5, rng=rng),
        lambda: nn.init.normal((2,), 1, rng),
    ):
        with pytest.raises(MicrogridError, match="rng"):
            make()


# --- errors a beginner meets ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, 2.0, "3", None, True])
def test_sizes_that_are_no_whole_numbers_from_1_are_refused_by_name(bad):
    for make, name in (
        (lambda: nn.Linear(bad, 2), "input_size"),
        (lambda: nn.Linear(2, bad), "output_size"),
        (lambda: nn.LSTM(bad, 2), "input_size"),
        (lambda: nn.GRU(2, bad), "hidden_size"),
        (lambda: nn.RNN(2, 2, bad), "num_layers"),
        (lambda: nn.Embedding(bad, 2), "count"),
        (lambda: nn.Embedding(2, bad), "features"),
        (lambda: nn.LayerNorm(bad), "features"),
        (lambda: nn.LSTMCell(2, bad), "hidden_size"),
    ):
        with pytest.raises(OperandError, match=f"{name} is a whole number, at least 1"):
            make()


@pytest.mark.parametrize("dtype", [int, "int32", bool, complex, "float31"])
def test_layers_of_a_dtype_that_is_not_of_floats_are_refused(dtype):
    for make in (lambda: nn.Linear(2, 2, dtype=dtype), lambda: nn.LSTM(2, 2, dtype=dtype)):
        with pytest.raises(MicrogridError, match=r"dtype|float|real"):
            make()


def test_an_input_of_other_features_is_refused_with_the_layers_and_the_inputs_name():
    x = example(2, 5, name="readings")
    for layer, name in (
        (nn.Linear(3, 2), "'linear' (Linear)"),
        (nn.LayerNorm(3), "'layernorm' (LayerNorm)"),
        (nn.LSTM(3, 2).named("encoder"), "'encoder' (LSTMCell)"),
        (nn.Sequential(nn.Linear(3, 2).named("into")), "'into' (Linear)"),
    ):
        with pytest.raises(OperandError) as found:
            layer(x)
        assert str(found.value) == f"{name} takes (..., 3), but was called on 'readings' of shape (2, 5)"
    with pytest.raises(OperandError, match=r"x\[:, None\]"):
        nn.RNN(1, 2)(mg.input(np.zeros(4), name="x"))


def test_an_embedding_of_floats_says_to_give_integers():
    with pytest.raises(OperandTypeError, match=r"whole numbers, not float64.*example of integers"):
        nn.Embedding(3, 2)(example())


def test_sequential_takes_layers_and_functions_only():
    for bad in (3, "linear", [nn.Linear(2, 2)], None):
        with pytest.raises(OperandTypeError, match="layers and functions"):
            nn.Sequential(bad)


def test_an_unknown_nonlinearity_is_refused():
    for make in (nn.RNN, nn.RNNCell):
        with pytest.raises(OperandError, match="'tanh' or 'relu', not 'sigmoid'"):
            make(2, 2, nonlinearity="sigmoid")


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines no forward"):
        Empty()(example())


def test_a_module_that_knows_its_parent_has_parameters_all_the_same():
    class Child(nn.Module):
        def __init__(self, parent):
            self.parent, self.inner = parent, linear(2, 2)

    class Parent(nn.Module):
        def __init__(self):
            self.child = Child(self)

    assert len(Parent().parameters()) == 2


# --- found in review ------------------------------------------------------------------------------------


class Dropping(nn.Cell):
    """Dropout inside the recurrence, one mask for all timesteps (Gal and Ghahramani)."""

    def __init__(self, input_size, hidden_size, rng=0):
        self.hidden_size = hidden_size
        self.drop = nn.Dropout(0.5, same_over_time=True, rng=rng)
        self.W = mg.parameter(nn.init.glorot((input_size, hidden_size), rng, np.float64))
        self.U = mg.parameter(nn.init.orthogonal((hidden_size, hidden_size), rng, np.float64))

    def step(self, x, h):
        return mg.tanh(x @ self.W + self.drop(h) @ self.U)


@pytest.mark.parametrize("recorded", [1, 3])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_dropout_inside_a_recurrence_has_a_mask_for_every_sequence_of_any_batch(recorded, batch):
    x = mg.input(np.zeros((recorded, 2)), name="x")
    net = mg.Graph(h=Dropping(2, 40)(x))
    xs = np.ones((4, batch, 2))
    outputs = mg.compile(mg.Graph(loss=mg.time_sum(mg.sum(net["h"])), h=net["h"]))(x=xs).outputs["h"]
    assert outputs.shape == (4, batch, 40)
    assert len({row.tobytes() for row in outputs[-1]}) == batch
    assert mg.compile(net, wrt=())(x=xs, lengths=np.full(batch, 4)).value.shape == (4, batch, 40)


def test_dropout_acts_where_only_a_number_of_steps_is_given():
    x = mg.input(np.ones((4, 50)), name="x")
    mean = mg.time_mean(mg.mean(nn.Dropout(0.5, rng=0)(x)))
    assert mg.compile(mean, wrt="x")(steps=10).value != 1.0
    assert mg.Graph(mean).unroll(steps=10).output.value != 1.0
    assert mg.compile(mean, wrt=())(steps=10).value == 1.0


def test_dropout_behind_a_state_that_is_given_its_start():
    x, h = mg.input(np.zeros((8, 4)), name="x"), mg.state(np.arange(32.0).reshape(8, 4), name="h")
    h.next = mg.tanh(h + x)
    loss = mg.time_sum(mg.sum(nn.Dropout(0.5, rng=0)(h)))
    run = mg.compile(loss, wrt="x")(x=np.ones((3, 2, 4)), initial={"h": np.zeros((2, 4))})
    assert run.state["h"].shape == (2, 4)


def test_a_module_with_a_named_state_of_its_own_is_called_twice():
    class Sum(nn.Module):
        def forward(self, x):
            total = mg.state(np.zeros(x.shape), name="total")
            total.next = total + x
            return total.next

    module, x = Sum().named("sum"), mg.input(np.zeros(2), name="x")
    net = mg.Graph(module(x) + module(x))
    assert [net.names[state] for state in net.states] == ["sum.total_1", "sum.total_2"] or len(net.states) == 2


def test_layers_of_a_sequence_keep_their_numbers_in_whatever_order_they_are_used():
    pair = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1))
    net = mg.Graph(pair[0](pair[1](mg.input(np.zeros((1, 2)), name="x"))))
    for name, parameter in pair.named_parameters().items():
        assert net[name] is parameter
