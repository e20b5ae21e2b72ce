"""Show what treating a time limit as the end of the world does to a value function.

CartPole with a limit of 100 steps, a policy that balances for longer than that, γ = 0.99: the value of a balanced
pole is close to 1/(1-γ) = 100 reward units. It is learned by TD(λ) with the limit bootstrapped from the true last
observation, and with the limit treated as a termination.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import COLOURS, axes, quick_to_compile, save, write_json

import pgjax as pg

DISCOUNT = 0.99


def balance(params: Any, obs: jax.Array) -> pg.Categorical:
    """Push towards where the pole falls, a little against the cart's drift: balances for hundreds of steps."""
    push = obs @ jnp.array([0.3, 1.0, 10.0, 3.0])
    return pg.Categorical(10.0 * jnp.stack([-push, push], axis=-1))


def learn_value(
    key: jax.Array,
    *,
    bootstrap: bool,
    limit: int = 100,
    num_envs: int = 128,
    num_steps: int = 32,
    num_updates: int = 1000,
) -> tuple[jax.Array, Any]:
    """Fit a value function to the balancing policy.

    Args:
        key: a PRNG key.
        bootstrap: whether truncated episodes are bootstrapped; if not, truncation counts as termination.
        limit: the time limit, environment steps.
        num_envs: environments side by side.
        num_steps: environment steps in each rollout.
        num_updates: gradient steps.

    Returns:
        The mean value over visited observations after each update, [num_updates], and the parameters.

    Raises:
        ValueError: as pg.rollout.
    """
    env, env_params = gymnax.make("CartPole-v1")
    env_params = env_params.replace(max_steps_in_episode=limit)
    model = pg.networks.ValueNetwork((64, 64))
    start_key, init_key, key = jax.random.split(key, 3)
    params = model.init(init_key, jnp.zeros(4))
    transform = optax.adam(1e-2)
    state = pg.init_rollout(start_key, env, env_params, num_envs=num_envs)

    def update(carry: Any, key: jax.Array) -> Any:
        params, opt_state, state = carry
        state, t = pg.rollout(key, None, state, policy=balance, env=env, env_params=env_params, num_steps=num_steps)
        if not bootstrap:
            t = t.replace(terminated=t.done)
        value, next_value = pg.bootstrap_values(params, t, value=model.apply)
        target = pg.lambda_returns(
            t.reward, next_value, terminated=t.terminated, truncated=t.truncated, discount=DISCOUNT, lam=0.95
        )
        grads = jax.grad(lambda params: pg.masked_mean(pg.value_loss(model.apply(params, t.obs), target)))(params)
        updates, opt_state = transform.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state, state), value.mean()

    carry = (params, transform.init(params), state)
    (params, _, _), values = jax.lax.scan(update, carry, jax.random.split(key, num_updates))
    return values, params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/truncation"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--fast", action="store_true", help="a few updates, to see that everything runs")
    options = parser.parse_args()
    small: Any = {}
    if options.fast:
        small = {"num_envs": 4, "num_steps": 8, "num_updates": 3}
        quick_to_compile()
    keys = jax.random.split(jax.random.key(0), options.seeds)
    curves = {
        name: np.asarray(jax.jit(jax.vmap(lambda key, b=bootstrap: learn_value(key, bootstrap=b, **small)[0]))(keys))
        for name, bootstrap in (
            ("bootstrapped from the true last observation", True),
            ("treated as termination", False),
        )
    }
    figure, (panel,) = axes(width=6.0)
    for colour, (name, rows) in zip(COLOURS, curves.items(), strict=False):
        panel.plot(rows.T, color=colour, linewidth=0.8, alpha=0.5)
        panel.plot(rows.mean(0), color=colour, label=f"limit {name}")
    panel.axhline(1 / (1 - DISCOUNT), color="black", linewidth=0.8, linestyle="--")
    panel.annotate("1 / (1 − γ)", (0, 1 / (1 - DISCOUNT)), xytext=(2, 3), textcoords="offset points", fontsize=8)
    panel.set(
        xlabel="updates", ylabel="mean value of visited states", title="CartPole with a limit of 100 steps, γ = 0.99",
        ylim=(0, 112),
    )  # fmt: skip
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, options.out / "truncation.png")
    write_json(options.out / "results.json", {name: rows[:, -1].tolist() for name, rows in curves.items()})
    for name, rows in curves.items():
        print(f"limit {name:45s} value after {rows.shape[1]} updates: {rows[:, -1].mean():6.1f}")
    print(f"figure and results.json in {options.out}")


if __name__ == "__main__":
    main()
