"""The main job: its data, its baselines, and what the command line refuses."""

import subprocess
import sys

import numpy as np
import pytest

import microgrid as mg
from microgrid.__main__ import main
from microgrid.demo.data import autoregressive_forecast, last_value_forecast, load_sunspots, rmse
from microgrid.demo.network import check_bptt, forecast, network, train


@pytest.fixture(scope="module")
def data():
    return load_sunspots()


def test_the_data_are_all_there(data):
    assert data.years.tolist() == list(range(1700, 2009))
    assert (data.numbers[0], data.numbers[1], data.numbers[-1]) == (5, 11, 2.9)
    assert data.train_length == 280


def test_baselines_have_the_errors_known_for_them(data):
    assert rmse(last_value_forecast(data), data.test) == pytest.approx(29.1, abs=0.05)
    assert rmse(autoregressive_forecast(data, 2), data.test) == pytest.approx(18.8, abs=0.05)
    assert rmse(autoregressive_forecast(data, 9), data.test) == pytest.approx(15.2, abs=0.05)


def test_a_forecast_reads_only_the_past(data):
    series = data.standardised()
    net = network(hidden=4, seed=0)
    changed = series.copy()
    changed[200:] += 5.0
    np.testing.assert_array_equal(forecast(net, series)[:199], forecast(net, changed)[:199])


def test_standardising_uses_training_years_only_and_can_be_undone(data):
    series = data.standardised()
    assert series[: data.train_length].mean() == pytest.approx(0)
    np.testing.assert_allclose(data.in_sunspots(series), data.numbers)


def test_bptt_agrees_with_central_differences(data):
    assert check_bptt(network(hidden=3, seed=1), data.standardised(), steps=5) < 1e-8


def test_training_lowers_the_loss_and_a_seed_repeats_it(data):
    series = data.standardised()[:60]
    runs = [[epoch.loss for epoch in train(network(4, seed=7), series, epochs=8, window=59)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.8 * runs[0][0]


def test_truncated_windows_carry_the_state_on(data):
    """With a step size of nothing, the loss over windows is the loss of the whole."""
    series = data.standardised()[:50]
    whole, windows = (
        next(train(network(4, seed=0), series, epochs=1, window=window, lr=1e-300)).loss for window in (49, 7)
    )
    assert windows == pytest.approx(whole, rel=1e-12)


def test_the_job_tells_its_story_and_writes_its_pictures(tmp_path):
    command = [sys.executable, "-m", "microgrid", "--epochs", "2", "--hidden", "3", "--steps", "40", "--out", "new/out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for told in (
        "Cycle found:  h → matmul",
        "which feeds itself",
        "40 timesteps",
        "central differences",
        "Truncated BPTT: windows of 40 years",
        "AR(9), least squares",
        "microgrid RNN, 3 units",
    ):
        assert told in done.stdout
    pictures = ["before_after.svg", "forecast.png", "loss_curve.png", "rolled.svg", "unrolled.svg"]
    assert sorted(path.name for path in (tmp_path / "new/out").iterdir()) == pictures
    for name in pictures:
        assert f"wrote new/out/{name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps: expected at least 1, not 0"),
        (["--epochs", "many"], "--epochs: expected a whole number, not 'many'"),
        (["--hidden", "-3"], "--hidden: expected at least 1, not -3"),
        (["--seed", "-1"], "--seed: expected at least 0, not -1"),
        (["--seed", "1.5"], "--seed: expected a whole number"),
    ],
)
def test_bad_values_are_refused_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "taken")])
    assert "cannot make the folder" in capsys.readouterr().err


def test_the_network_is_the_one_that_the_story_tells():
    net = network(hidden=16, seed=0)
    assert [str(cycle) for cycle in net.cycles] == ["h → matmul → add → add → tanh → h"]
    with pytest.raises(mg.errors.CyclicGraphError):
        net.backward()
