"""DiCE: second derivatives from samples, and learners that cooperate because they differentiate each other's step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import COLOURS, bootstrap, save

import pgjax as pg
from papers._form import Finding, number, panels, verdicts
from pgjax import exact

TITLE = "DiCE: Hessians from samples, and cooperation by looking ahead"
REFERENCE = (
    "Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing and Whiteson (2018), "
    "DiCE: the infinitely differentiable Monte Carlo estimator"
)
CLAIM = (
    "Derivatives of the usual surrogate are right once; differentiated twice it lacks terms. Those of DiCE estimate "
    "the Hessian as well. With it, learners in the iterated prisoner's dilemma that differentiate "
    "through the learning step of the other reach cooperation from samples, where naive learners defect."
)
FULL = {
    "length": 16, "base": 32, "num_estimates": 2048, "groups": (1, 4, 16, 64, 256),
    "num_updates": 180, "num_runs": 3, "batch": 512, "rollout": 50,
}  # fmt: skip
FAST = {
    "length": 4, "base": 4, "num_estimates": 8, "groups": (1, 2),
    "num_updates": 2, "num_runs": 2, "batch": 4, "rollout": 4,
}  # fmt: skip
DISCOUNT = 0.96
LOOK_AHEAD = {"naive": 0.0, "LOLA-DiCE": 0.3}  # step size of the other's step that is looked through
LEARNING_RATE = 0.1
EARNED = ((-1.0, -3.0, 0.0, -2.0), (-1.0, 0.0, -3.0, -2.0))  # of each player for CC, CD, DC, DD
SITUATIONS = ("start", "CC", "CD", "DC", "DD")
COOPERATION, DEFECTION = -1.0, -2.0

Array = jax.Array
Surrogate = Callable[[Array], Array]


def dilemma(horizon: int | None = None) -> tuple[exact.TabularMDP, exact.TabularMDP]:
    """The game as a process whose action is that of both players, as each of them is paid.

    Args:
        horizon: steps of an episode, or None.

    Returns:
        Two processes that differ in their rewards.
    """
    transition = np.zeros((5, 4, 5))
    transition[:, np.arange(4), 1 + np.arange(4)] = 1.0
    start = np.eye(5)[0]
    first, second = (
        exact.TabularMDP(
            jnp.asarray(transition), jnp.tile(jnp.array(pay), (5, 1)), jnp.asarray(start), DISCOUNT, horizon
        )
        for pay in EARNED
    )
    return first, second


def policy(params: Array, obs: Array) -> pg.Categorical:
    """Both players: logits [2, 5] of cooperating in each situation, as a distribution over the four joint actions."""
    logits = obs @ params.T
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    pairs = [mine[..., 0] + other[..., 1] for mine in (yes, no) for other in (yes, no)]
    return pg.Categorical(jnp.stack(pairs, axis=-1))


def exact_return(params: Array, mdp: exact.TabularMDP) -> Array:
    """The expected discounted return of a player."""
    return exact.objective(mdp, policy(params, jnp.eye(5)).probs)


def sample(key: Array, params: Array, num_envs: int, num_steps: int) -> pg.Trajectory:
    """Play; the reward is that of the first player."""
    env = ENVIRONMENT
    start, run = jax.random.split(key)
    state = pg.init_rollout(start, env, env.default_params, num_envs=num_envs)
    return pg.rollout(
        run, params, state, policy=policy, env=env, env_params=env.default_params, num_steps=num_steps
    )[1]  # fmt: skip


def paid(trajectory: pg.Trajectory, player: int) -> pg.Trajectory:
    """The same play with the rewards of a player."""
    return trajectory.replace(reward=jnp.array(EARNED[player])[trajectory.action])


ENVIRONMENT = exact.TabularEnvironment(dilemma()[0])


USUAL, PLAIN, BASELINE, LOADED = "usual surrogate", "DiCE", "DiCE, baseline", "Loaded DiCE, baseline"
OPTIONS: dict[str, Any] = {"policy": policy, "discount": DISCOUNT}


def usual(trajectory: pg.Trajectory) -> Surrogate:
    """Log-probabilities times returns, a surrogate for one derivative."""
    weight = pg.discount_weight(trajectory.step, DISCOUNT)
    return lambda p: pg.reinforce.surrogate(
        p, trajectory, step_weight=weight, baseline=pg.leave_one_out, **OPTIONS
    )  # fmt: skip


def loaded(trajectory: pg.Trajectory) -> Surrogate:
    """Loaded DiCE with returns minus those of the others: a baseline in every order."""
    returns = pg.discounted_returns(
        trajectory.reward, terminated=trajectory.terminated, truncated=trajectory.truncated, discount=DISCOUNT
    )
    advantage, weight = returns - pg.leave_one_out(returns), pg.discount_weight(trajectory.step, DISCOUNT)
    return lambda p: pg.loaded_dice.surrogate(p, trajectory, policy=policy, advantage=advantage, step_weight=weight)


SURROGATES: dict[str, Callable[[pg.Trajectory], Surrogate]] = {
    USUAL: usual,
    PLAIN: lambda trajectory: lambda p: pg.dice.surrogate(p, trajectory, **OPTIONS),
    BASELINE: lambda trajectory: lambda p: pg.dice.surrogate(p, trajectory, baseline=pg.leave_one_out, **OPTIONS),
    LOADED: loaded,
}


def measure(size: Any) -> dict[str, Any]:
    """Estimate Hessians from batches of several sizes, and let pairs of learners play.

    Args:
        size: FULL or FAST.

    Returns:
        The figures.
    """
    return {"hessian": _hessians(size), "learning": _learning(size)}


def _hessians(size: Any) -> dict[str, Any]:
    params = jnp.asarray(np.sin(1.0 + np.arange(5) + 2.0 * np.arange(2)[:, None]), jnp.float32)
    length, base = size["length"], size["base"]

    @jax.jit
    def run(keys: Array) -> Any:
        def one(key: Array) -> Any:
            trajectory = sample(key, params, base, length)
            return {name: jax.hessian(of(trajectory))(params).reshape(10, 10) for name, of in SURROGATES.items()}

        truth = jax.hessian(lambda p: -exact_return(p, dilemma(length)[0]))(params).reshape(10, 10)
        return truth, jax.lax.map(one, keys, batch_size=min(32, len(keys)))

    truth, found = jax.tree.map(
        lambda x: np.asarray(x, np.float64), run(jax.random.split(jax.random.key(0), size["num_estimates"]))
    )
    curves: dict[str, Any] = {}
    for name, rows in found.items():
        curves[name] = []
        for group in size["groups"]:
            means = rows.reshape(-1, group, 100).mean(1)
            correlation = [float(np.corrcoef(x, truth.ravel())[0, 1]) for x in means]
            low, high = bootstrap(correlation, statistic=np.mean)
            curves[name].append({"mean": float(np.mean(correlation)), "low": low, "high": high})
    length_of = np.linalg.norm(truth)
    error = {name: float(np.linalg.norm(x.mean(0) - truth) / length_of) for name, x in found.items()}
    noise = {name: float(np.sqrt(x.var(0, ddof=1).sum() / len(x)) / length_of) for name, x in found.items()}
    return {
        "batch": [base * group for group in size["groups"]],
        "curves": curves,
        "error_of_all": error,
        "noise_of_all": noise,
        "num_all": base * size["num_estimates"],
        "length": length,
    }


def update(params: Array, opt_state: Any, key: Array, look_ahead: Array, size: Any) -> Any:
    """One simultaneous step of both players, each through one step of the other.

    Args:
        params: [2, 5].
        opt_state: of Adam.
        key: a PRNG key.
        look_ahead: step size of the other's step; 0 is a naive learner.
        size: batch and rollout.

    Returns:
        params and opt_state.
    """

    def loss(params: Array, trajectory: pg.Trajectory, player: int) -> Array:
        return SURROGATES[BASELINE](paid(trajectory, player))(params)

    def gradient(player: int, key: Array) -> Array:
        other, (before_key, after_key) = 1 - player, jax.random.split(key)
        before = sample(before_key, params, size["batch"], size["rollout"])

        def ahead(params: Array) -> Array:
            step = jax.grad(loss)(params, before, other)[other]
            return params.at[other].add(-look_ahead * step)

        after = sample(after_key, jax.lax.stop_gradient(ahead(params)), size["batch"], size["rollout"])
        return jax.grad(lambda params: loss(ahead(params), after, player))(params)[player]

    keys = jax.random.split(key)
    updates, opt_state = optax.adam(LEARNING_RATE).update(jnp.stack([gradient(i, keys[i]) for i in (0, 1)]), opt_state)
    return optax.apply_updates(params, updates), opt_state


def _learning(size: Any) -> dict[str, Any]:
    games = dilemma()

    def one(key: Array, look_ahead: Array) -> Any:
        start, run = jax.random.split(key)
        params = 0.5 * jax.random.normal(start, (2, 5))

        def step(carry: Any, key: Array) -> Any:
            params, opt_state = update(carry[0], carry[1], key, look_ahead, size)
            mean = jnp.stack([(1.0 - DISCOUNT) * exact_return(params, game) for game in games])
            return (params, opt_state), mean

        carry, earned = jax.lax.scan(
            step, (params, optax.adam(LEARNING_RATE).init(params)), jax.random.split(run, size["num_updates"])
        )
        cooperates = jax.nn.sigmoid(carry[0])
        return earned, cooperates.at[1].set(cooperates[1, jnp.array([0, 1, 3, 2, 4])])  # own action first

    keys = jax.random.split(jax.random.key(1), size["num_runs"])
    steps = jnp.array(list(LOOK_AHEAD.values()))
    program = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(None, 0)))
    earned, cooperates = (np.asarray(x, np.float64) for x in program(keys, steps))
    return {
        "return": {name: earned[i].mean(-1).tolist() for i, name in enumerate(LOOK_AHEAD)},
        "cooperates": {name: cooperates[i].tolist() for i, name in enumerate(LOOK_AHEAD)},
        "batch": size["batch"],
        "rollout": size["rollout"],
    }


def verdict(figures: dict[str, Any]) -> str:
    """Say whether DiCE finds the Hessian where the usual surrogate does not, and who cooperates.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    hessian, learning = figures["hessian"], figures["learning"]
    first, last = ({name: curve[i]["mean"] for name, curve in hessian["curves"].items()} for i in (0, -1))
    error, noise = hessian["error_of_all"], hessian["noise_of_all"]
    final = {name: [row[-1] for row in rows] for name, rows in learning["return"].items()}
    spread = {name: ", ".join(f"{x:.2f}" for x in rows) for name, rows in final.items()}
    best = ", ".join(f"{max(row):.2f}" for row in learning["return"]["LOLA-DiCE"])
    few, many = (", ".join(f"{name} {x[name]:.2f}" for name in SURROGATES) for x in (first, last))
    errors = ", ".join(f"{name} {number(error[name])} (noise {number(noise[name])})" for name in SURROGATES)
    return verdicts(
        Finding(
            "The Hessian of DiCE is the exact one in the mean, that of the usual surrogate another one.",
            all(error[name] < 2.0 * noise[name] for name in (PLAIN, BASELINE)) and error[USUAL] > 5.0 * noise[USUAL],
            f"relative error of the mean over {hessian['num_all']} trajectories, and the noise to expect in it: "
            f"{errors}.",
        ),
        Finding(
            "The correlation of its Hessian with the exact one grows with the batch to nearly 1.",
            last[PLAIN] > 0.9 and last[PLAIN] > first[PLAIN],
            f"from {hessian['batch'][0]} trajectories {few}; from {hessian['batch'][-1]} {many}. The baseline of DiCE "
            "is for the gradient; Loaded DiCE, a later paper, has one in every order.",
        ),
        Finding(
            "In the iterated prisoner's dilemma naive learners defect, and LOLA-DiCE escapes that.",
            max(final["naive"]) < -1.9 and min(final["LOLA-DiCE"]) > -1.6,
            f"return per step after {len(learning['return']['naive'][0])} updates, where cooperation is "
            f"{COOPERATION:g} and defection {DEFECTION:g}, from {learning['batch']} games of "
            f"{learning['rollout']} steps in each sample: LOLA-DiCE {spread['LOLA-DiCE']}; naive {spread['naive']}.",
        ),
        Finding(
            "LOLA-DiCE reaches cooperation and stays there, in every run.",
            min(final["LOLA-DiCE"]) > -1.3,
            f"the best return of each run on its way is {best}, at the end it is {spread['LOLA-DiCE']}.",
        ),
    )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw correlations over the batch, returns over updates, and the policies that were learned.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    figure, grid = panels(1, 3, width=4.6, height=3.9)
    left, middle, right = grid[0]
    hessian, learning = figures["hessian"], figures["learning"]
    colours = (COLOURS[1], COLOURS[0], COLOURS[4], COLOURS[2])
    for name, colour, line, marker in zip(SURROGATES, colours, ("--", "-", ":", "-."), "osD^", strict=True):
        curve = hessian["curves"][name]
        low, mean, high = ([x[key] for x in curve] for key in ("low", "mean", "high"))
        left.plot(hessian["batch"], mean, line, marker=marker, markersize=4, color=colour, label=name)
        left.fill_between(hessian["batch"], low, high, color=colour, alpha=0.2, linewidth=0)
    left.set(
        xscale="log", xlabel=f"trajectories of {hessian['length']} steps in the batch", ylim=(None, 1.02),
        ylabel="correlation with the exact Hessian", title="second derivatives",
    )  # fmt: skip
    left.legend(frameon=False, fontsize=8)
    lines = {"LOLA-DiCE": (COLOURS[0], "-", "o"), "naive": (COLOURS[1], "--", "s")}
    for name, (colour, line, marker) in lines.items():
        for i, row in enumerate(learning["return"][name]):
            middle.plot(np.arange(1, len(row) + 1), row, line, color=colour, linewidth=1.2, label=None if i else name)
        rows = np.array(learning["cooperates"][name]).mean((0, 1))
        right.plot(SITUATIONS, rows, marker, color=colour, markersize=8, label=name)
        each = np.array(learning["cooperates"][name]).reshape(-1, len(SITUATIONS))
        right.plot(SITUATIONS, each.T, marker, color=colour, markersize=3, alpha=0.4)
    for level, name in ((COOPERATION, "both cooperate"), (DEFECTION, "both defect")):
        middle.axhline(level, color="black", linewidth=0.8, linestyle=":")
        middle.annotate(name, (1, level), xytext=(0, 3), textcoords="offset points", fontsize=8)
    middle.set(
        xlabel="updates", ylabel="return per step, mean of both players", ylim=(-2.15, -0.85),
        title="iterated prisoner's dilemma, γ = 0.96",
    )  # fmt: skip
    middle.legend(frameon=False, fontsize=8, loc="center right")
    right.set(
        xlabel="what happened last (own action, then the other's)", ylabel="probability of cooperating",
        ylim=(-0.03, 1.03), title="learned policies: mean (large), each player",
    )  # fmt: skip
    right.legend(frameon=False, fontsize=8)
    save(figure, path)
