"""mg.sample: tokens drawn by the probabilities that the network gives, and by no others."""

import numpy as np
import pytest

import microgrid as mg
from microgrid.errors import CausalityError, MicrogridError, OperandError, SequenceError
from microgrid.sampling import probabilities

FOUR = np.array([0.5, 0.3, 0.15, 0.05])


def table(chances, dtype=np.int64):
    """A network whose next token depends on the token alone: row i of `chances` follows token i."""
    token = mg.input(np.zeros(1, dtype), name="token")
    with np.errstate(divide="ignore"):
        return mg.lookup(mg.tensor(np.log(chances), name="table"), token)


def always(chances, dtype=np.int64):
    """A network that gives the same chances after every token."""
    return table(np.tile(chances, (len(chances), 1)), dtype)


def recurrent(tokens=5, seed=0):
    """An embedding, an LSTM with dropout above it, and logits that are far from even."""
    token = mg.input(np.array([0]), name="token")
    h = mg.nn.Dropout(0.5, rng=seed)(mg.nn.LSTM(3, 6, rng=seed)(mg.nn.Embedding(tokens, 3, rng=seed)(token)))
    return 5 * mg.nn.Linear(6, tokens, rng=seed)(h)


def chi_square(drawn, chances):
    """Pearson's statistic, and what it stays below 999 times in 1000 for as many degrees of freedom."""
    possible = np.asarray(chances) > 0
    counts = np.bincount(drawn, minlength=len(possible))
    assert not counts[~possible].any()
    expected = np.asarray(chances)[possible] * counts.sum()
    bound = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 8: 26.12, 9: 27.88}[possible.sum() - 1]
    return float(np.sum((counts[possible] - expected) ** 2 / expected)), bound


def of_scores(scores):
    e = np.exp(scores - np.max(scores))
    return e / e.sum()


# --- the distribution -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, FOUR),
        ({"temperature": 0.5}, FOUR**2 / np.sum(FOUR**2)),
        ({"temperature": 2.0}, FOUR**0.5 / np.sum(FOUR**0.5)),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, FOUR),
        ({"top_p": 0.9}, np.array([0.5, 0.3, 0.15, 0]) / 0.95),
        ({"top_p": 1.0}, FOUR),
        ({"forbid": [0]}, np.array([0, 0.3, 0.15, 0.05]) / 0.5),
        ({"forbid": [0, 3], "top_k": 3}, [0, 2 / 3, 1 / 3, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0.625, 0.375, 0, 0]),  # 0.5/0.95 < 0.6
        ({"temperature": 0.5, "top_p": 0.6}, [1, 0, 0, 0]),  # tempered first: 0.25 of 0.365
    ],
)
def test_tokens_are_drawn_by_the_probabilities_that_the_settings_leave(settings, expected):
    drawn = mg.sample(always(FOUR), np.zeros((400, 1), int), 15, seed=1, **settings).ravel()
    if np.count_nonzero(expected) == 1:
        assert set(drawn) == {int(np.argmax(expected))}
    else:
        found, bound = chi_square(drawn, expected)
        assert found < bound


def test_each_token_is_drawn_by_what_follows_the_one_before_it():
    chain = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [0.2, 0.2, 0.6]])
    chain[1] = [0.5, 1e-12, 0.5]
    starts = np.arange(600).reshape(-1, 1) % 3
    drawn = np.concatenate([starts, mg.sample(table(chain), starts, 20, seed=2)], axis=1)
    for before in range(3):
        follows = drawn[:, 1:][drawn[:, :-1] == before]
        found, bound = chi_square(follows, np.where(chain[before] < 1e-9, 0, chain[before]))
        assert found < bound


def test_sequences_of_a_batch_are_drawn_independently():
    drawn = mg.sample(always(FOUR), np.zeros((2000, 1), int), 2, seed=3)
    assert drawn.shape == (2000, 2)
    pairs = drawn[:, 0] * 4 + drawn[:, 1]
    together = np.bincount(pairs, minlength=16).reshape(4, 4)
    expected = 2000 * np.outer(FOUR, FOUR)
    assert np.sum((together - expected) ** 2 / expected) < 37.7  # 15 degrees of freedom, 1 in 1000


def test_temperature_0_takes_the_likeliest_and_the_first_of_equals():
    assert mg.sample(always([0.2, 0.4, 0.4]), [0], 5, temperature=0).tolist() == [1] * 5
    assert mg.sample(always([0.2, 0.4, 0.4]), [0], 5, temperature=0, forbid=[1]).tolist() == [2] * 5


def test_a_higher_temperature_than_any_makes_all_allowed_tokens_alike():
    assert np.allclose(probabilities([[0.0, 5.0, 9.0]], np.inf, None, None), 1 / 3)
    assert np.allclose(probabilities([[0.0, 5.0, 9.0]], 1e300, None, None, [1]), [[0.5, 0, 0.5]])
    with np.errstate(all="raise"):
        assert np.allclose(probabilities([[0.0, 5.0, 9.0]], np.inf, None, None, [1]), [[0.5, 0, 0.5]])


@pytest.mark.parametrize("temperature", [1e-300, 1e-310, 5e-324])
def test_a_temperature_next_to_0_is_as_good_as_0(temperature):
    assert probabilities([[100.0, 50.0, -3.0]], temperature, None, None).tolist() == [[1, 0, 0]]


def test_ties_at_the_border_of_top_k_and_top_p_are_cut_in_order():
    even = np.log(np.full((1, 4), 0.25))
    assert probabilities(even, 1.0, 2, None).tolist() == [[0.5, 0.5, 0, 0]]
    assert probabilities(even, 1.0, None, 0.5).tolist() == [[0.5, 0.5, 0, 0]]
    assert probabilities(even, 1.0, None, 0.51).tolist() == [[1 / 3, 1 / 3, 1 / 3, 0]]


@pytest.mark.parametrize("top_p", [1e-300, 1e-9, 0.5])
def test_a_tiny_top_p_leaves_the_likeliest_token(top_p):
    assert probabilities(np.log([[0.1, 0.6, 0.3]]), 1.0, None, top_p).tolist() == [[0, 1, 0]]


def test_top_p_1_and_top_k_of_all_change_nothing():
    scores = np.random.default_rng(0).normal(size=(5, 30)) * 3
    plain = probabilities(scores, 1.0, None, None)
    assert np.allclose(plain, [of_scores(row) for row in scores], rtol=1e-13)
    assert np.allclose(probabilities(scores, 1.0, None, 1.0), plain, rtol=1e-13)
    assert np.allclose(probabilities(scores, 1.0, 30, None), plain, rtol=1e-13)


def test_large_logits_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert np.allclose(probabilities([[1e300, 1e300, -1e300]], 1.0, None, None), [[0.5, 0.5, 0]])


class Highest(np.random.Generator):
    """The largest number that a generator can draw, always."""

    def random(self, size=None, *args, **kwargs):
        return np.full(size, 1 - 2.0**-53)


def test_no_token_without_a_chance_is_drawn_even_by_the_largest_random_number():
    for seed in range(30):  # sums of chances that end a rounding below 1
        scores = np.random.default_rng(seed).normal(size=50)
        drawn = mg.sample(always(of_scores(scores)), [1], 1, forbid=[0], seed=Highest(np.random.PCG64(0)))
        assert drawn[0] != 0


# --- the network ----------------------------------------------------------------------------------------


def sampled_by_hand(logits, prompts, steps, seed, temperature):
    """The whole sequence computed anew for every token."""
    program, generator = mg.compile(mg.Graph(logits), wrt=()), np.random.default_rng(seed)
    tokens = np.array(prompts).T
    for _ in range(steps):
        last = program(token=tokens).value[-1].astype(np.float64)
        new = []
        for row, u in zip(last, generator.random((len(last), 1))[:, 0], strict=True):
            order = sorted(range(len(row)), key=lambda i, row=row: -row[i])
            chances = of_scores(row / temperature)
            back = np.empty(len(row))
            back[order] = chances[order]
            new.append(int(np.searchsorted(np.cumsum(back), u, side="right")))
        tokens = np.concatenate([tokens, [new]])
    return tokens[len(prompts[0]) :].T


@pytest.mark.parametrize("prompts", [[[0]], [[4, 2, 1]], [[0, 1], [2, 3], [4, 4]]])
def test_tokens_equal_those_of_the_whole_sequence_computed_anew_each_time(prompts):
    logits = recurrent()
    drawn = mg.sample(logits, prompts, 25, seed=5, temperature=0.8)
    assert drawn.tolist() == sampled_by_hand(logits, prompts, 25, 5, 0.8).tolist()
    assert len(set(drawn.ravel().tolist())) > 2


def test_the_prompt_is_read_and_not_given_back():
    cycle = np.eye(5)[[1, 2, 3, 4, 0]] * (1 - 5e-12) + 1e-12
    assert mg.sample(table(cycle), [3, 0, 2], 4).tolist() == [3, 4, 0, 1]
    token, seen = mg.input(np.array([0]), name="token"), mg.state(np.zeros((1, 5)), name="seen")
    seen.next = seen + mg.lookup(mg.tensor(np.eye(5)), token)
    assert mg.sample(seen.next, [4, 4, 2], 3, temperature=0).tolist() == [4, 4, 4]  # all of it is remembered


def test_a_prompt_alone_and_in_a_batch_give_one_row_and_rows():
    logits = recurrent()
    assert mg.sample(logits, [0, 1], 7, seed=0).shape == (7,)
    assert mg.sample(logits, [[0, 1]], 7, seed=0).shape == (1, 7)
    assert mg.sample(logits, [[0, 1]], 7, seed=0)[0].tolist() == mg.sample(logits, [0, 1], 7, seed=0).tolist()


def test_a_network_recorded_with_another_batch_serves_any():
    token = mg.input(np.zeros(3, int), name="token")
    logits = mg.nn.Linear(4, 4, rng=0)(mg.nn.GRU(2, 4, rng=1)(mg.nn.Embedding(4, 2, rng=2)(token)))
    for batch in 1, 2, 3, 5:
        assert mg.sample(logits, np.zeros((batch, 2), int), 3, seed=0).shape == (batch, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_the_network_may_be_recorded_with_any_kind_of_whole_numbers(dtype):
    expected = mg.sample(always(FOUR), [0], 8, seed=0).tolist()
    assert mg.sample(always(FOUR, dtype), np.zeros(1, dtype), 8, seed=0).tolist() == expected
    assert mg.sample(always(FOUR, dtype), [0], 8, seed=0).tolist() == expected


def test_nothing_is_dropped_and_no_generator_but_that_of_the_draws_moves():
    token = mg.input(np.array([0]), name="token")
    layer = mg.nn.Dropout(0.9, rng=7)
    logits = layer(10 * mg.lookup(mg.tensor(np.eye(4)[[1, 2, 3, 0]]), token))
    before = layer.generator.bit_generator.state
    assert mg.sample(logits, [0], 8, temperature=0).tolist() == [1, 2, 3, 0] * 2
    assert layer.generator.bit_generator.state == before


def test_parameters_are_those_of_now_and_are_left_alone():
    logits = recurrent()
    first = mg.sample(logits, [0], 20, seed=0).tolist()
    for parameter in mg.Graph(logits).parameters:
        parameter.value[...] *= -1
    held = [p.value.tobytes() for p in mg.Graph(logits).parameters]
    assert mg.sample(logits, [0], 20, seed=0).tolist() != first
    assert [p.value.tobytes() for p in mg.Graph(logits).parameters] == held
    assert all(p.grad is None for p in mg.Graph(logits).parameters)


def test_a_graph_is_as_good_as_its_output():
    logits = recurrent()
    assert mg.sample(mg.Graph(logits), [0], 9, seed=0).tolist() == mg.sample(logits, [0], 9, seed=0).tolist()


# --- seeds ----------------------------------------------------------------------------------------------


def test_a_seed_repeats_the_tokens_and_another_does_not():
    logits = recurrent()
    first, again, other = (mg.sample(logits, [0], 30, seed=seed).tolist() for seed in (4, 4, 5))
    assert first == again != other


def test_a_generator_goes_on_from_where_it_stands():
    logits, generator = always(FOUR), np.random.default_rng(4)
    both = [*mg.sample(logits, [0], 5, seed=generator), *mg.sample(logits, [0], 5, seed=generator)]
    assert both == mg.sample(logits, [0], 10, seed=4).tolist()


# --- stop and forbid ------------------------------------------------------------------------------------


def test_a_sequence_ends_at_stop_and_is_filled_with_it():
    drawn = mg.sample(always(FOUR), np.zeros((40, 1), int), 400, seed=0, stop=3)
    assert drawn.shape[1] < 400  # all have ended
    for row in drawn:
        end = row.tolist().index(3)
        assert (row[end:] == 3).all()
    assert (drawn[:, -1] == 3).all()
    assert not (drawn[:, -2] == 3).all()  # not one token more than the longest needs


def test_stop_in_the_prompt_ends_nothing():
    assert len(mg.sample(always([0.5, 0.5, 1e-300]), [2, 2], 6, seed=0, stop=2)) == 6


def test_stop_does_not_change_the_sequences_that_go_on():
    free = mg.sample(recurrent(), [[0], [1], [2]], 12, seed=3)
    ending = mg.sample(recurrent(), [[0], [1], [2]], 12, seed=3, stop=4)
    for row, other in zip(free, ending, strict=True):
        end = row.tolist().index(4) if 4 in row else len(row)
        assert other[: end + 1].tolist() == row[: len(other)][: end + 1].tolist()


def test_forbidden_tokens_are_never_drawn():
    assert set(mg.sample(always(FOUR), [0], 500, seed=0, forbid=[0, 2])) == {1, 3}
    assert set(mg.sample(always(FOUR), [0], 500, seed=0, forbid=np.array([0, 2]))) == {1, 3}


def test_a_network_may_rule_tokens_out_itself_by_logits_of_minus_infinity():
    assert set(mg.sample(always([0.5, 0.0, 0.5]), [0], 100, seed=0)) == {0, 2}


# --- errors ---------------------------------------------------------------------------------------------


def ten(logits=None, start=(0,), steps=10, **settings):
    return mg.sample(always(FOUR) if logits is None else logits, start, steps, seed=0, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"forbid": range(4)}, "forbid"),
        ({"forbid": [7]}, "forbid.*7"),
        ({"forbid": [-1]}, "forbid.*-1"),
        ({"forbid": 0}, "forbid"),
        ({"forbid": [0.5]}, "forbid"),
        ({"top_k": 0}, "top_k is a whole number, at least 1, not 0"),
        ({"top_k": 2.5}, "top_k.*2.5"),
        ({"top_k": "2"}, "top_k"),
        ({"top_p": 0}, "top_p is above 0 and at most 1, not 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_p": "0.5"}, "top_p"),
        ({"temperature": -1}, "temperature is at least 0, not -1"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": None}, "temperature"),
        ({"steps": 0}, "at least 1, not 0"),
        ({"steps": -3}, "at least 1, not -3"),
        ({"steps": 2.0}, "steps"),
        ({"steps": True}, "steps"),
        ({"stop": 99}, "stop.*99"),
        ({"stop": "."}, "stop"),
        ({"start": []}, "at least one token"),
        ({"start": np.zeros((2, 0), int)}, "at least one token"),
        ({"start": [0.0]}, "whole numbers"),
        ({"start": "abc"}, "whole numbers"),
        ({"start": [[0], [1, 2]]}, "start"),
        ({"start": np.zeros((1, 1, 1), int)}, "start"),
        ({"start": [9]}, "start holds 9"),
        ({"start": [-1]}, "start holds -1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_was_found(settings, words):
    with pytest.raises(MicrogridError, match=words):
        ten(**settings)


def test_a_network_that_is_none_of_tokens_is_refused():
    token, x = mg.input(np.array([0]), name="token"), mg.input(np.zeros((1, 3)), name="x")
    rows = mg.lookup(mg.tensor(np.eye(3)), token)
    with pytest.raises(SequenceError, match=r"one input of whole numbers; it has 'x' \(float64\)"):
        ten(x @ mg.tensor(np.eye(3)))
    with pytest.raises(SequenceError, match=r"'token'.*'x'"):
        ten(rows + x)
    with pytest.raises(SequenceError, match="it has none"):
        ten(mg.parameter(np.ones((1, 3))) * 1.0)
    with pytest.raises(OperandError, match=r"logits at every timestep.*shape \(\)"):
        ten(mg.nn.cross_entropy(rows, token))
    with pytest.raises(OperandError, match=r"shape \(1,\)"):
        ten(mg.lookup(mg.tensor(np.ones(3)), token))


def test_a_network_that_reads_the_future_is_refused():
    token = mg.input(np.array([0]), name="token")
    both = mg.nn.RNN(2, 2, bidirectional=True, rng=0)(mg.nn.Embedding(4, 2, rng=0)(token))
    with pytest.raises(CausalityError, match="whole sequence"):
        ten(mg.nn.Linear(4, 4, rng=0)(both))


@pytest.mark.parametrize("logits", [np.ones((4, 4)), mg.nn.Embedding(3, 3), "logits", [1.0]])
def test_what_is_no_network_is_refused_by_name(logits):
    with pytest.raises(MicrogridError, match=type(logits).__name__):
        ten(logits)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(bad):
    with pytest.raises(MicrogridError, match="NaN or infinite"):
        ten(table(np.exp(np.array([[0.0, 1.0], [bad, 0.0]])) if bad is np.nan else [[1.0, 1.0], [np.inf, 1.0]]), [1])
