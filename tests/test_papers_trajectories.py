"""What the modules about papers on trajectories compute, by other derivations, and that their verdicts can say no."""

import copy
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

from papers import beukman_2026, foerster_2018, ilyas_2020, imani_2018, nota_2020, tucker_2018
from papers._flow import flow, times
from papers._form import FOUND, NOT_FOUND


def findings(module, figures):
    """For each finding whether it was found again."""
    lines = [line for line in module.verdict(figures).splitlines() if line.startswith("- ")]
    assert all(line.startswith((f"- {FOUND}", f"- {NOT_FOUND}")) for line in lines)
    return [line.startswith(f"- {FOUND}") for line in lines]


def test_a_flow_is_that_of_the_closed_form():
    """With dz/dt = σ(z)σ(-z), the quantity 2z + 2 sinh z grows like t."""
    with jax.enable_x64(True):
        z = flow(lambda z: jax.nn.sigmoid(z) * jax.nn.sigmoid(-z), jnp.float64(-1.0), 600, lambda z: z)
        grown = 2 * z + 2 * np.sinh(z) - (2 * -1.0 + 2 * np.sinh(-1.0))
    np.testing.assert_allclose(grown, times(600), rtol=1e-6)


@pytest.mark.parametrize("lam", [1.0, 0.6])
def test_the_split_of_the_linear_system_is_that_of_a_listing(lam):
    """Two steps by Gauss-Hermite nodes: the first state, two actions and one disturbance, grouped by what is known."""

    a, b, q, r, k, discount = 0.9, 0.5, 1.0, 0.2, 0.4, 0.95
    points, mass = np.polynomial.hermite_e.hermegauss(6)
    mass = mass / mass.sum()
    weights = np.einsum("i,j,k,l->ijkl", mass, mass, mass, mass)  # x_0, action 0, disturbance, action 1
    x0 = (1.0 + 0.4 * points)[:, None, None, None] + 0 * weights
    e0, w, e1 = (np.reshape(points, shape) + 0 * weights for shape in ((6, 1, 1), (6, 1), (6,)))
    u0 = -k * x0 + 0.5 * e0
    x1 = a * x0 + b * u0 + 0.3 * w
    u1 = -k * x1 + 0.5 * e1
    rewards = [-(q * x**2 + r * u**2) for x, u in ((x0, u0), (x1, u1))]

    def last(x):  # the value of the last step
        return -((q + r * k**2) * x**2 + r * 0.25)

    def mean(y, known):  # the mean over the variables that are not known
        rest = tuple(range(known, 4))
        return (y * weights).sum(rest, keepdims=True) / weights.sum(rest, keepdims=True) + 0 * y

    value0 = mean(rewards[0] + discount * rewards[1], 1)
    delta1 = rewards[1] - last(x1)
    advantage0 = rewards[0] + discount * last(x1) - value0 + discount * lam * delta1
    scores = [-0.5 * e0 * x0 / 0.25, -0.5 * e1 * x1 / 0.25]
    parts, share = np.zeros(4), np.array([1.0, discount]) / (1 + discount)
    for weight, score, advantage, bare, state, action in (
        (share[0], scores[0], advantage0, rewards[0] + discount * rewards[1], 1, 2),
        (share[1], scores[1], delta1, rewards[1], 3, 4),
    ):
        x, y = score * advantage, score * bare
        by_state, by_action = (mean(x, i) if i < 4 else x for i in (state, action))
        parts += weight * np.array([
            (weights * by_state**2).sum(),
            (weights * (by_action**2 - by_state**2)).sum(),
            (weights * (x**2 - by_action**2)).sum(),
            (weights * ((mean(y, action) if action < 4 else y) ** 2 - by_state**2)).sum(),
        ])  # fmt: skip
    total = sum(
        weight * (weights * score * advantage).sum()
        for weight, score, advantage in zip(share, scores, (advantage0, delta1), strict=True)
    )
    parts[0] -= total**2
    with jax.enable_x64(True):
        found = tucker_2018.lqr_split(2, lam)
    names = ("state", "action", "trajectory", "action without baseline")
    np.testing.assert_allclose([found[name] for name in names], parts, rtol=1e-9)
    assert abs(tucker_2018.lqr_split(2, 0.3)["trajectory"] - parts[2]) > 1e-3  # another λ is another split


def test_the_dilemma_pays_what_its_strategies_earn():
    def strategy(*yes):  # of cooperating after start, CC, CD, DC, DD
        return 30.0 * (2.0 * jnp.array(yes, jnp.float32) - 1.0)

    first, second = foerster_2018.dilemma()
    good, bad, tit_for_tat = strategy(1, 1, 1, 1, 1), strategy(0, 0, 0, 0, 0), strategy(1, 1, 0, 1, 0)
    for pair, expected in (
        ((good, good), (-25.0, -25.0)),
        ((bad, bad), (-50.0, -50.0)),
        ((good, bad), (-75.0, 0.0)),
        ((tit_for_tat, bad), (-3.0 - 0.96 * 50.0, -0.96 * 50.0)),
    ):
        earned = [float(foerster_2018.exact_return(jnp.stack(pair), game)) for game in (first, second)]
        np.testing.assert_allclose(earned, expected, rtol=1e-5, atol=1e-4)


def test_two_semi_gradients_are_judged_by_where_they_end():
    figures = {
        "starts": [0.5],
        "along": {
            "with": {"discounted": [[0.1, 0.25]], "undiscounted": [[0.5, 1.0]]},
            "without": {"discounted": [[0.1, 0.0]], "undiscounted": [[0.5, 0.0]]},
        },
        "range": {"discounted": [0.0, 0.25], "undiscounted": [0.0, 1.0]},
        "asymmetry": {"with": 1e-15, "without": 0.1},
    }
    assert findings(nota_2020, figures) == [True, True]
    harmless = copy.deepcopy(figures)
    harmless["along"]["without"]["discounted"] = [[0.1, 0.2]]
    harmless["asymmetry"]["without"] = 1e-15
    assert findings(nota_2020, harmless) == [False, False]

    figures = {
        "starts": [0.9],
        "at_start": [1.0],
        "along": {"emphatic": [[1.0, 1.25]], "off_pac": [[1.0, 0.8]]},
        "range": [0.25, 1.25],
    }
    assert findings(imani_2018, figures) == [True, True]
    figures["along"]["off_pac"] = [[1.0, 1.25]]
    assert findings(imani_2018, figures) == [False, False]


def test_a_large_part_of_the_action_is_no_mirage():
    def split(action, trajectory):
        return {"state": 0.1, "action": action, "trajectory": trajectory, "action without baseline": 10.0}

    figures = {
        "horizons": [1, 9],
        "lams": [0.0, 1.0],
        "by_horizon": [split(1.0, 0.0), split(0.1, 9.0)],
        "by_lam": {"LQR": [split(1.0, 1.0), split(0.1, 9.0)]},
        "action_without_baseline": {"LQR": 10.0},
    }
    assert findings(tucker_2018, figures) == [True] * 4
    figures["by_lam"]["LQR"] = [split(1.0, 1.0), split(9.0, 1.0)]
    assert findings(tucker_2018, figures) == [False] * 4


def test_a_hessian_without_its_terms_and_players_that_defect_are_not_found():
    names = list(foerster_2018.SURROGATES)
    rise = {name: [{"mean": x, "low": x, "high": x} for x in (0.2, 0.98)] for name in names}
    figures = {
        "hessian": {
            "batch": [32, 8192], "num_all": 1, "length": 1, "curves": rise,
            "error_of_all": {name: 0.9 if name == foerster_2018.USUAL else 0.1 for name in names},
            "noise_of_all": dict.fromkeys(names, 0.1),
        },
        "learning": {"batch": 1, "rollout": 1, "return": {"LOLA-DiCE": [[-1.5, -1.1]], "naive": [[-1.5, -1.99]]}},
    }  # fmt: skip
    assert findings(foerster_2018, figures) == [True] * 4
    figures["hessian"]["error_of_all"]["DiCE"] = 0.9
    rise["DiCE"][-1]["mean"] = 0.5
    figures["learning"]["return"]["LOLA-DiCE"] = [[-1.5, -1.9]]
    assert findings(foerster_2018, figures) == [False] * 4


def test_aligned_gradients_are_not_found_to_be_misaligned():
    def stage(few, many, between):
        cosine = [{"mean": x, "low": x, "high": x} for x in (few, many)]
        return {
            "cosine": cosine, "pairwise": [between, 0.9], "standardized": {"mean": few}, "differ": 1e-7,
            "relative_error": 0.1, "reference_steps": 1e6,
        }  # fmt: skip

    figures = {
        "window": 2048,
        "groups": [1, 64],
        "environments": {"CartPole-v1": [stage(0.6, 0.9, 0.3), stage(0.3, 0.9, 0.1)]},
    }
    assert findings(ilyas_2020, figures) == [True] * 3
    figures["environments"]["CartPole-v1"] = [stage(0.6, 0.9, 0.3), stage(0.95, 0.9, 0.9)]
    assert findings(ilyas_2020, figures) == [False] * 3


def test_a_branch_that_gains_nothing_leaves_no_plateau():
    rng = np.random.default_rng(0)

    def rows(level):
        return (level + rng.normal(size=(8, 40))).tolist()

    kl = rows(0.0)
    found = {
        "before": {"episode_return": rows(300.0), "kl": kl},
        "after": {
            name: {"episode_return": rows(level), "kl": kl}
            for name, level in (("as before", 300.0), ("smaller learning rate", 450.0), ("more environments", 440.0))
        },
        "signal_to_noise": {"early": [1.0], "late": [0.1]},
        "learning_rate": 1.0,
        "reachable": 500.0,
    }
    figures = {"environments": {"CartPole-v1": found}, "more": 4}
    assert findings(beukman_2026, figures) == [True] * 4
    found["reachable"] = 290.0
    found["after"]["smaller learning rate"]["episode_return"] = rows(200.0)
    found["after"]["more environments"]["episode_return"] = rows(200.0)
    found["signal_to_noise"] = {"early": [0.1], "late": [1.0]}
    assert findings(beukman_2026, figures) == [False] * 4
