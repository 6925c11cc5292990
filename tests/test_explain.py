"""explain: terms and paths of one gradient, their sums, their number, and how they are told."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import RandomNetwork

import microgrid as mg
from microgrid.errors import CyclicGraphError, GradientError, OperandError, OperandTypeError
from microgrid.explain import explain


def scalar_rnn(xs=(1.0, 0.5, -0.5, 2.0)):
    u, x, h = mg.parameter(0.5, name="u"), mg.input(0.0, name="x"), mg.state(0.0, name="h")
    h.next = mg.tanh(u * h + x)
    dag = mg.Graph(mg.time_sum(h.next**2).named("loss")).unroll(x=list(xs))
    dag.backward()
    return dag, u


def total(contributions):
    found, *rest = contributions
    for each in rest:
        found = found + each
    return found


def test_a_state_of_a_scalar_rnn_is_told_as_in_a_textbook():
    dag, _ = scalar_rnn()
    assert str(explain(dag["h", 2])).splitlines() == [
        "∂loss/∂h[2] = −0.1043    at h[2] = 0.7068",
        "",
        "1 term, one for each time it is read:",
        "  ∂multiply_1[2]/∂h[2] · ∂loss/∂multiply_1[2] = 0.5 · (−0.2087) = −0.1043",
        "",
        "2 paths from h[2] to loss:",
        "  h[2] → multiply_1[2] → add_1[2] → tanh_1[2] → power_1[2] → loss",
        "      0.5 · 0.9788 · (−0.2911) = −0.1425",
        "  h[2] → multiply_1[2] → add_1[2] → tanh_1[2] → h[3] → multiply_1[3] → add_1[3] → tanh_1[3] → power_1[3] "
        "→ loss",
        "      0.5 · 0.9788 · 0.5 · 0.08126 · 1.917 = 0.03812",
        "  sum: ∂loss/∂h[2] = −0.1043",
    ]


def test_gradient_terms_and_paths_of_every_node():
    dag, u = scalar_rnn()
    for node in dag.nodes:
        if node.grad is None:
            continue
        found = explain(node, limit=1000)
        assert found.value == node.value
        assert found.gradient == node.grad
        assert found.path_count == len(found.paths)
        if found.terms:
            assert total([term.contribution for term in found.terms]) == node.grad
            assert all(
                term.contribution == pytest.approx(term.local * term.incoming, rel=1e-12) for term in found.terms
            )
        assert sum(path.contribution for path in found.paths) == pytest.approx(node.grad, rel=1e-12)
        assert all(path.nodes[0] is node and path.nodes[-1] is dag.output for path in found.paths)
        assert all(np.prod(path.locals) == pytest.approx(path.contribution) for path in found.paths)
    assert len(explain(u).terms) == 4  # one per timestep


def test_the_shortest_paths_come_first_and_the_rest_is_summed():
    _, u = scalar_rnn()
    whole, part = explain(u, limit=100), explain(u, limit=3)
    assert whole.path_count == part.path_count == 10
    lengths = [len(path.nodes) for path in whole.paths]
    assert lengths == sorted(lengths)
    assert [path.nodes for path in part.paths] == [path.nodes for path in whole.paths[:3]]
    assert part.rest == pytest.approx(sum(path.contribution for path in whole.paths[3:]), abs=1e-12)
    assert "and 7 more paths, together" in str(part)
    assert "10 paths from u to loss:" in str(explain(u, limit=0))


def all_paths(node, root):
    """By brute force: the number of ways from operands to readers."""
    if root is node:
        return 1
    return sum(all_paths(node, x) for x in root.operands if x.requires_grad)


@given(st.lists(st.tuples(st.sampled_from("+*ts"), st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_random_scalar_graphs(program):
    leaf = mg.tensor(0.8, name="leaf")
    nodes = [leaf, mg.tensor(-0.4)]
    for sign, i, j in program:
        x, y = nodes[i % len(nodes)], nodes[j % len(nodes)]
        nodes.append({"+": x + y, "*": x * y, "t": mg.tanh(x), "s": mg.sin(x) + y}[sign])
    root = nodes[-1] + 0.5 * leaf
    root.backward()
    found = explain(leaf, limit=10_000)
    assert found.gradient == leaf.grad
    assert found.path_count == all_paths(leaf, root) == len(found.paths)
    assert sum(path.contribution for path in found.paths) == pytest.approx(leaf.grad, rel=1e-9, abs=1e-12)
    assert len({tuple(map(id, path.nodes)) for path in found.paths}) <= found.path_count


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    network = RandomNetwork(seed, steps=2, stacks=False)
    net, leaves = network.tensors(numbers_as_floats=bool(seed % 2))
    dag = net.unroll(network.sequences(net, leaves), steps=2)
    dag.backward()
    for parameter in dag.parameters:
        if parameter.grad is None:
            continue
        found = explain(parameter, limit=40)
        np.testing.assert_array_equal(found.gradient, parameter.grad)
        if found.terms:
            np.testing.assert_array_equal(total([term.contribution for term in found.terms]), parameter.grad)
        if found.path_count <= 40:
            summed = total([path.contribution for path in found.paths]) if found.paths else 0.0
            np.testing.assert_allclose(summed, parameter.grad, rtol=1e-8, atol=1e-12)
        assert str(found)


def test_arrays_show_shapes_and_norms():
    a, W = mg.tensor(np.ones((2, 3)), name="a"), mg.parameter(0.1 * np.ones((3, 2)), name="W")
    loss = (mg.sum(mg.tanh(a @ W)) + mg.sum(a)).named("loss")
    loss.backward()
    found = explain(a)
    assert [term.local for term in found.terms] == [None, None]
    assert {path.locals for path in found.paths} == {()}
    np.testing.assert_allclose(total([path.contribution for path in found.paths]), a.grad, rtol=1e-12)
    assert "[2 × 3, norm 2.449]" in str(found)  # √6: what mg.sum sends


def test_a_chain_of_100_000_timesteps():
    first = y = mg.tensor(0.9, name="first")
    for _ in range(100_000):
        y = -y
    y.backward()
    found = explain(first, limit=1)
    assert found.gradient == first.grad
    assert len(found.paths[0].nodes) == 100_001
    text = str(found)
    assert len(text) < 1000
    assert "… 99993 more …" in text
    assert "… (99992 factors) …" in text


def test_the_number_of_paths_may_be_astronomical():
    first = y = mg.tensor(0.9, name="first")
    for _ in range(1000):
        y = y * 0.5 + y * 0.4
    y.backward()
    found = explain(first, limit=3)
    assert found.path_count == 2**1000
    assert "about 10^301 paths" in str(found)


# --- what is differentiated --------------------------------------------------------------------------


def test_by_default_it_is_what_backward_was_last_called_on():
    a = mg.tensor(2.0, name="a")
    one, two = (a * 3).named("one"), (a * a).named("two")
    one.backward()
    two.backward()
    assert explain(a).of is two
    assert explain(a).gradient == 4.0
    assert explain(a, of=one).gradient == 3.0  # a.grad holds the sum, 7
    assert a.grad == 7.0


def test_it_starts_from_the_seed_of_backward():
    a = mg.tensor(np.array([1.0, 2.0]), name="a")
    y = (a * a).named("y")
    y.backward(np.array([1.0, 10.0]))
    found = explain(a)
    np.testing.assert_array_equal(found.gradient, [2.0, 40.0])
    np.testing.assert_array_equal(total([path.contribution for path in found.paths]), [2.0, 40.0])
    np.testing.assert_array_equal(explain(y).gradient, [1.0, 10.0])


def test_backward_does_not_keep_what_it_was_called_on():
    a = mg.tensor(2.0, name="a")
    (a * a).backward()
    gc.collect()
    with pytest.raises(GradientError, match=r"there is no gradient of 'a' to explain: call loss.backward\(\) first"):
        explain(a)


def test_threads_remember_their_own():
    a = mg.tensor(2.0, name="a")
    y = a * a
    y.backward()
    told = []

    def elsewhere():
        try:
            explain(a)
        except GradientError as error:
            told.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "call loss.backward() first" in told[0]
    assert explain(a).of is y


def test_a_node_without_a_gradient_is_refused_in_its_users_words():
    a, b = mg.tensor(2.0, name="a"), mg.tensor(3.0, name="b")
    fixed = mg.tensor(1.0, name="fixed", requires_grad=False)
    loss = a * a * fixed
    loss.backward()
    with pytest.raises(GradientError, match=r"no gradient of 'loss' by 'b' to explain: 'loss' does not depend on it"):
        explain(b)
    with pytest.raises(GradientError, match=r"by 'fixed' to explain: it needs no gradient"):
        explain(fixed)
    with pytest.raises(GradientError, match="only a scalar has a gradient without a seed"):
        explain(a, of=a * np.ones(3))
    with pytest.raises(OperandTypeError, match="explain takes a node, such as"):
        explain("h")
    with pytest.raises(OperandTypeError, match="what is differentiated"):
        explain(a, of="loss")
    with pytest.raises(OperandError, match="limit"):
        explain(a, limit=-1)


def test_a_network_with_a_cycle_is_refused():
    h, u = mg.state(0.5, name="h"), mg.parameter(0.5, name="u")
    h.next = mg.tanh(h * u)
    with pytest.raises(CyclicGraphError, match="Unroll first"):
        explain(u, of=h.next)


def test_where_no_gradient_flows_is_refused():
    a, b = mg.tensor(2.0, name="a"), mg.tensor(1.0, name="b")
    y = mg.where(a > 1, a.detach(), 0.0) + b
    y.backward()
    with pytest.raises(GradientError, match="'y' does not depend on it"):
        explain(a)


def test_hostile_names_stay_on_their_line():
    a = mg.tensor(2.0, name="a\nb\x1b[31m")
    y = (a * a).named("y")
    y.backward()
    text = str(explain(a))
    assert "\x1b" not in text
    assert text.splitlines()[0].startswith("∂y/∂a b")
