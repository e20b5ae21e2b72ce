"""The table of recipes: a new recipe is one entry, and all laws hold for it."""

import functools
from typing import Any

import derivations
import derivations_a3c
import derivations_acer
import derivations_acer_continuous
import derivations_d4pg
import derivations_dpg
import derivations_fasttd3
import derivations_groups
import derivations_impala
import derivations_maddpg
import derivations_maddpg_more as more_maddpg
import derivations_natural
import derivations_online
import derivations_penalty
import derivations_population as population
import derivations_ppg
import derivations_replay as replayed
import derivations_reppo
import derivations_sac as soft
import jax
import jax.numpy as jnp
import numpy as np
import world
from entry import Entry, Subject, order, shuffled

import pgjax as pg
from pgjax.recipes import (
    a2c,
    a3c,
    acer,
    acer_continuous,
    acktr,
    average_reward_actor_critic,
    d4pg,
    ddpg,
    dpg,
    eligibility_traces,
    evolution_strategies,
    fasttd3,
    finite_differences,
    grpo,
    impala,
    kl_ppo,
    maddpg,
    maddpg_ensemble,
    maddpg_inference,
    natural_actor_critic,
    natural_policy_gradient,
    off_pac,
    one_step_actor_critic,
    ppg,
    ppo,
    reinforce,
    reppo,
    sac,
    sac_discrete,
    svpg,
    td3,
    trpo,
)

COMMON = {"learning_rate": 0.05, "discount": 0.9, "max_grad_norm": 1e9, "anneal": 1.0}
CRITIC = {"lam": 0.8, "value_coef": 0.5, "entropy_coef": 0.3}
CHANGES = {"learning_rate": (0.0, 0.2), "discount": (0.0, 1.0), "max_grad_norm": (np.inf, 0.1), "anneal": (0.0, 0.5)}
CRITIC_CHANGES = {"lam": (0.0, 1.0), "value_coef": (0.0, 2.0), "entropy_coef": (0.0, 1.0)}
LEARNER = {"learning_rate": 0.1, "discount": 0.8, "max_grad_norm": 1e9}
SHUFFLED = {"num_epochs": 2, "num_minibatches": 4, "normalize_rewards": False}

RECIPES = {
    "reinforce": Entry(reinforce, COMMON, CHANGES, LEARNER, derivations.reinforce, critic=False),
    "reinforce, standardized": Entry(
        reinforce,
        COMMON,
        CHANGES,
        LEARNER,
        derivations.standardized_reinforce,
        {"standardized": True, "baseline": None},
        critic=False,
    ),
    "a2c": Entry(
        a2c,
        COMMON | CRITIC,
        CHANGES | CRITIC_CHANGES,
        LEARNER | CRITIC | {"entropy_coef": 0.0},
        derivations.a2c,
        {"normalize_rewards": False},
    ),
    "ppo": Entry(
        ppo,
        COMMON | CRITIC | {"clip": 0.05, "value_clip": 0.04},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "value_clip": (np.inf, 0.01)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "value_clip": np.inf},
        derivations.ppo,
        SHUFFLED,
        ("next", "act", "shuffle"),
        given=shuffled,
    ),
    "kl_ppo": Entry(
        kl_ppo,
        COMMON | CRITIC | {"kl_coef": 0.5, "kl_target": 0.03, "kl_factor": 3.0},
        CHANGES | CRITIC_CHANGES | {"kl_coef": (0.0, 20.0), "kl_target": (np.inf, 1e-4), "kl_factor": (1.0, 5.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "kl_coef": 1.0, "kl_target": 0.01, "kl_factor": 2.0},
        derivations_penalty.kl_ppo,
        SHUFFLED,
        ("next", "act", "shuffle"),
        given=lambda entry, keys, state, data: shuffled(entry, keys, state, data) | {"kl_coef": state.kl_coef},
    ),
}


def split_for_phases(entry: Entry, key: jax.Array) -> jax.Array:
    """The keys of an update with two phases: that of the second is split from what the first leaves."""
    left, act_key, shuffle_key = jax.random.split(key, 3)
    next_key, aux_key = jax.random.split(left)
    return jnp.stack([next_key, act_key, shuffle_key, aux_key])


def shuffled_twice(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The order of the rows in both phases."""
    counts = {"num_epochs": entry.settings["num_aux_epochs"], "num_minibatches": entry.settings["num_minibatches"]}
    return shuffled(entry, keys, state, data) | {"aux_order": np.asarray(order(keys[3], **counts))}


def grouped(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """New episodes, the same in both members of each pair of environments."""
    env, env_params = world.world()
    start = pg.init_rollout(keys[2], env, env_params, num_envs=world.NUM_ENVS)
    first = world.NUM_ENVS // 2 * [0, 1]
    paired = jax.tree.map(lambda x: x[jnp.arange(world.NUM_ENVS) - jnp.array(first)], start)
    return world.policy, state.params, paired


def whole_episodes(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The order of the environments."""
    counts = {name: entry.settings[name] for name in ("num_epochs", "num_minibatches")}
    return {"order": np.asarray(order(keys[3], size=world.NUM_ENVS, **counts))}


RECIPES |= {
    "ppg": Entry(
        ppg,
        COMMON | CRITIC | {"clip": 0.05, "clone_coef": 1.5},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "clone_coef": (0.0, 10.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "clone_coef": 10.0},
        derivations_ppg.ppg,
        SHUFFLED | {"num_iterations": 1, "num_aux_epochs": 2, "auxiliary": world.auxiliary},
        ("next", "act", "shuffle", "aux"),
        split=split_for_phases,
        given=shuffled_twice,
    ),
    "grpo": Entry(
        grpo,
        COMMON | {"clip": 0.05, "kl_coef": 0.3},
        CHANGES | {"clip": (1e9, 0.02), "kl_coef": (0.0, 5.0)},
        LEARNER | {"clip": 0.2, "kl_coef": 0.0},
        derivations_groups.rloo,
        {
            "group_size": 2,
            "advantage": "rloo",
            "num_epochs": 2,
            "num_minibatches": 2,
            "reference": derivations_groups.REFERENCE,
        },
        ("next", "act", "start", "shuffle"),
        critic=False,
        split=lambda entry, key: jax.random.split(key, 5),
        acting=grouped,
        given=whole_episodes,
    ),
}

# Recipes that take a step after each environment step, or learn from what another policy does.
ONE_STEP = {name: CRITIC[name] for name in ("value_coef", "entropy_coef")}
OTHER_DATA = {
    "behaviour_temperature": 1.5,
    "emphatic_lam": 1.0,
    "clip_rho": np.inf,
    "clip_c": 1.0,
    "clip_pg_rho": np.inf,
}


def without_discount(hyper: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in hyper.items() if name != "discount"}


RECIPES |= {
    "one_step_actor_critic": Entry(
        one_step_actor_critic,
        COMMON | ONE_STEP,
        CHANGES | {name: CRITIC_CHANGES[name] for name in ONE_STEP},
        LEARNER | ONE_STEP | {"entropy_coef": 0.0},
        functools.partial(derivations_online.one_step, weighted=True),
        {"weight_by_discount": True},
        num_steps=1,
        world=functools.partial(world.world, pays_at_once=True),  # it sees no further than to the next observation
        memory=derivations_online.stepping,
    ),
    "eligibility_traces": Entry(
        eligibility_traces,
        COMMON | CRITIC | {"learning_rate": 0.5, "critic_lam": 0.7},
        CHANGES | CRITIC_CHANGES | {"critic_lam": (0.0, 1.0)},
        LEARNER | CRITIC | {"learning_rate": 3.0, "critic_lam": 0.7, "entropy_coef": 0.0},
        functools.partial(derivations_online.traces, dutch=True, weighted=True),
        {"traces": "dutch", "weight_by_discount": True, "normalize_rewards": False},
        num_steps=1,
        memory=derivations_online.traced,
    ),
    "average_reward_actor_critic": Entry(
        average_reward_actor_critic,
        without_discount(COMMON) | CRITIC | {"critic_lam": 0.7, "average_rate": 0.1},
        without_discount(CHANGES) | CRITIC_CHANGES | {"critic_lam": (0.0, 1.0), "average_rate": (0.0, 0.5)},
        without_discount(LEARNER) | CRITIC | {"critic_lam": 0.7, "average_rate": 0.1, "entropy_coef": 0.0},
        derivations_online.average_reward,
        num_steps=1,
        discounted=False,
        memory=derivations_online.traced,
    ),
    "off_pac": Entry(
        off_pac,
        COMMON
        | CRITIC
        | OTHER_DATA
        | {"behaviour_temperature": 4.0, "clip_rho": 1.05, "clip_c": 1.02, "clip_pg_rho": 1.05},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "clip_c": (np.inf, 0.5), "clip_pg_rho": (np.inf, 0.5)}
        | {"behaviour_temperature": (1.0, 2.0), "emphatic_lam": (0.0, 0.5)},
        LEARNER | CRITIC | OTHER_DATA | {"entropy_coef": 0.0},
        derivations_online.off_pac,
        {"emphatic": True, "normalize_rewards": False},
        acting=lambda keys, state: (pg.bind(world.flattened, state.hyper), state.params, state.rollout),
        memory=derivations_online.followed,
    ),
}

# Recipes whose data come from other parameters than those that are trained.
IMPALA_LAG = 3
REPLAY = {"replay_ratio": 2, "capacity": 4}


def impala_acting(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """The parameters after update - lag, where they are kept."""
    row = (state.update - IMPALA_LAG) % (IMPALA_LAG + 1)
    return world.policy, jax.tree.map(lambda x: x[row], state.past), state.rollout


def a3c_acting(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """The worker whose turn it is."""
    return world.policy, *jax.tree.map(lambda x: x[state.update % 4], (state.workers, state.rollout))


RECIPES |= {
    "impala": Entry(
        impala,
        COMMON | CRITIC | {"clip_rho": 1.0, "clip_c": 0.9, "clip_pg_rho": 1.0},
        CHANGES | CRITIC_CHANGES | dict.fromkeys(("clip_rho", "clip_c", "clip_pg_rho"), (np.inf, 0.5)),
        LEARNER | CRITIC | {"entropy_coef": 0.0},
        derivations_impala.impala,
        {"lag": IMPALA_LAG},
        acting=impala_acting,
    ),
    "a3c": Entry(
        a3c,
        COMMON | CRITIC | {"learning_rate": 0.02, "decay": 0.9, "eps": 1e-3},
        CHANGES | CRITIC_CHANGES | {"decay": (0.0, 0.5), "eps": (1e-6, 1.0)},
        LEARNER | CRITIC | {"learning_rate": 0.05, "entropy_coef": 0.0},
        derivations_a3c.a3c,
        {"num_workers": 4},
        acting=a3c_acting,
        stepped=lambda state, update: jax.tree.map(lambda x: x[int(update) % 4], state.rollout),
        start_keys=5,
    ),
    "acer": Entry(
        acer,
        COMMON | CRITIC | {"clip_rho": 1.0, "max_divergence": 0.005, "average_decay": 0.9},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "max_divergence": (np.inf, 0.001), "average_decay": (0.0, 0.5)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip_rho": 2.0, "max_divergence": 1.0},
        derivations_acer.acer,
        REPLAY | {"init_params": derivations_acer.init_params},
        ("next", "act", "replay"),
        given=lambda entry, keys, state, data: derivations_acer.replayed(keys, state, data, REPLAY),
        state_values=lambda params: np.sum(params.critic * jax.nn.softmax(params.actor), -1),
    ),
    "acer_continuous": Entry(
        acer_continuous,
        COMMON | CRITIC | {"clip_rho": 1.0, "max_divergence": 0.005, "average_decay": 0.9},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "max_divergence": (np.inf, 0.001), "average_decay": (0.0, 0.5)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip_rho": 2.0, "max_divergence": 1.0},
        derivations_acer_continuous.acer_continuous,
        derivations_acer_continuous.SETTINGS,
        ("next", "act", "replay", "noise"),
        derivations_acer_continuous.FUNCTIONS,
        world=world.continuous,
        acting=lambda keys, state: (derivations_acer_continuous.policy, state.params, state.rollout),
        draws=2,  # the third makes noise
        plays_itself=False,  # a sample of a continuum earns about 1, and not 1
        given=derivations_acer_continuous.replayed,
        chosen=lambda row: np.tanh(row[0]),
        state_values=lambda params: params.critic[:, 0],
    ),
}

# Recipes that play many policies side by side.
RECIPES |= {
    "svpg": Entry(
        svpg,
        COMMON | CRITIC | {"temperature": 0.5, "cooling": 0.8, "prior_scale": 2.0},
        CHANGES | CRITIC_CHANGES | {"temperature": (0.0, 3.0), "cooling": (0.0, 1.0), "prior_scale": (np.inf, 0.7)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "temperature": 0.01, "prior_scale": np.inf},
        population.svpg,
        {"num_particles": population.NUM_PARTICLES},
        members=population.NUM_PARTICLES,
        start_keys=2 * population.NUM_PARTICLES,
        draws=population.NUM_PARTICLES,
        trained="particles",
        seen=population.seen_by_particles,
    ),
    "evolution_strategies": Entry(
        evolution_strategies,
        {"learning_rate": 0.05, "scale": 0.5, "weight_decay": 0.1, "anneal": 1.0},
        {"learning_rate": (0.0, 0.2), "scale": (0.05, 2.0), "weight_decay": (0.0, 1.0), "anneal": (0.0, 0.5)},
        {"learning_rate": 0.1, "weight_decay": 0.0},
        population.evolution_strategies,
        {"num_pairs": population.NUM_PAIRS, "greedy": False},
        ("next", "search"),
        critic=False,
        world=world.brief,
        stepped=None,
        plays_itself=False,
        members=2 * population.NUM_PAIRS,
        draws=population.NUM_PAIRS,
        once=False,
        seen=population.seen_by_pairs,
    ),
    "finite_differences": Entry(
        finite_differences,
        {"learning_rate": 0.05, "epsilon": 1.0, "anneal": 1.0},
        {"learning_rate": (0.0, 0.2), "epsilon": (0.5, 2.0), "anneal": (0.0, 0.5)},
        {"learning_rate": 0.1},
        population.finite_differences,
        {"greedy": False},
        ("next", "search"),
        critic=False,
        world=world.brief,
        stepped=None,
        plays_itself=False,
        members=2 * population.NUM_PARAMS,
        draws=1,
        once=False,
        seen=population.seen_along_entries,
    ),
}

# Recipes that follow the natural gradient.
NATURAL = {"damping": 0.05, "discount": 0.9, "lam": 0.8, "critic_learning_rate": 0.05}
NATURAL_CHANGES = {
    "damping": (0.02, 1.0),
    "discount": (0.0, 1.0),
    "lam": (0.0, 1.0),
    "critic_learning_rate": (0.0, 0.2),
}
NATURAL_LEARNER = {"discount": 0.8, "critic_learning_rate": 0.1}
FITTED: dict[str, Any] = {
    "settings": SHUFFLED | {"num_iters": 20},
    "keys": ("next", "act", "shuffle"),
    "given": shuffled,
    "memory": derivations_natural.critic_memory,
}

RECIPES |= {
    "natural_policy_gradient": Entry(
        natural_policy_gradient,
        NATURAL | {"learning_rate": 0.3, "max_kl": 0.02},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.001), "learning_rate": (0.0, 0.01)},
        NATURAL_LEARNER | {"learning_rate": 0.3},
        derivations_natural.natural_policy_gradient,
        **FITTED,
    ),
    "natural_actor_critic": Entry(
        natural_actor_critic,
        NATURAL | {"learning_rate": 0.3, "max_kl": 0.02},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.001), "learning_rate": (0.0, 0.01)},
        NATURAL_LEARNER | {"learning_rate": 0.3},
        derivations_natural.natural_actor_critic,
        **FITTED,
    ),
    "trpo": Entry(
        trpo,
        NATURAL | {"max_kl": 0.1, "shrink": 0.7},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.02), "shrink": (0.9, 0.3)},
        NATURAL_LEARNER | {"max_kl": 0.02},
        derivations_natural.trpo,
        # From a policy that is sure of itself the quadratic model asks for too long a step.
        **FITTED | {"settings": FITTED["settings"] | {"init_params": world.init_sharp}},
    ),
    "acktr": Entry(
        acktr,
        {"learning_rate": 0.2, "max_kl": 0.002, "damping": 0.05, "decay": 0.8, "discount": 0.9, "anneal": 1.0} | CRITIC,
        {"learning_rate": (0.0, 0.01), "max_kl": (0.0, 1e-4), "damping": (1e-4, 1.0), "decay": (0.0, 0.99)}
        | {"discount": (0.0, 1.0), "anneal": (0.0, 0.5)}
        | CRITIC_CHANGES,
        {"learning_rate": 1.0, "max_kl": 0.1, "discount": 0.8, "entropy_coef": 0.0},
        derivations_natural.acktr,
        {"normalize_rewards": False, "exact_factors": True}
        | {"policy": world.layers_policy, "value": world.layers_value, "init_params": world.init_layers},
        memory=derivations_natural.no_factors,
    ),
}

# Recipes that learn from a replay, with actions in a box.
OFF_POLICY = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "target_rate": 0.2}
OFF_POLICY_CHANGES = {
    "learning_rate": (0.0, 0.2),
    "critic_learning_rate": (0.0, 0.3),
    "discount": (0.0, 1.0),
    "target_rate": (0.0, 1.0),
}
NOISE = {"noise": 0.3, "noise_theta": 0.5}
NOISE_CHANGES = {"noise": (0.0, 2.0), "noise_theta": (1.0, 0.1)}
OFF_POLICY_LEARNER = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.8, "target_rate": 0.1}
OFF_POLICY_LEARNER |= {"noise": 0.5, "noise_theta": 1.0}
SMOOTHING = {"smoothing": 0.3, "smoothing_clip": 0.4}
REPLAYED: dict[str, Any] = {
    "settings": replayed.SETTINGS,
    "keys": ("next", "act", "learn"),
    "draws": replayed.DRAWS,
    "world": world.continuous,
    "functions": {
        "policy": world.deterministic,
        "critic": world.action_value,
        "init_params": world.init_quadratics,
    },
    "memory": replayed.memory_of,
    "seen": replayed.seen,
    "given": replayed.targets,
    "plays_itself": False,
    "chosen": lambda row: np.tanh(row[0]),
    "state_values": replayed.value_at_mode,
}

RECIPES |= {
    "ddpg": Entry(
        ddpg,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        OFF_POLICY_LEARNER,
        replayed.ddpg,
        **REPLAYED,
    ),
    "td3": Entry(
        td3,
        OFF_POLICY | NOISE | SMOOTHING,
        OFF_POLICY_CHANGES | NOISE_CHANGES | {"smoothing": (0.0, 1.0), "smoothing_clip": (np.inf, 0.05)},
        OFF_POLICY_LEARNER | SMOOTHING | {"smoothing": 0.1},
        functools.partial(replayed.td3, delay=2),
        **REPLAYED
        | {
            "functions": REPLAYED["functions"]
            | {"init_params": functools.partial(world.init_quadratics, num_critics=2)},
            "given": lambda *seen: replayed.targets(*seen) | {"count": int(seen[2].num_learned)},
        },
    ),
}

RECIPES |= {
    "dpg": Entry(
        dpg,
        {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "lam": 0.8} | NOISE,
        {"learning_rate": (0.0, 0.2), "critic_learning_rate": (0.0, 0.3), "discount": (0.0, 1.0), "lam": (0.0, 1.0)}
        | NOISE_CHANGES,
        {"learning_rate": 0.02, "critic_learning_rate": 0.1, "discount": 0.8, "lam": 0.8}
        | {"noise": 0.5, "noise_theta": 1.0},
        derivations_dpg.dpg,
        {"normalize_rewards": False},
        ("next", "noise", "act"),
        {"policy": derivations_dpg.policy, "value": world.value, "init_params": derivations_dpg.init_params},
        world=world.continuous,
        draws=1,
        plays_itself=False,
        chosen=lambda row: np.tanh(row[0]),
        memory=derivations_dpg.memory_of,
        seen=derivations_dpg.seen,
        given=derivations_dpg.given,
    ),
}

# Those whose policy is stochastic and paid for its entropy.
SOFT = OFF_POLICY | {"temperature": 0.3}
SOFT_CHANGES = OFF_POLICY_CHANGES | {"critic_learning_rate": (0.0, 0.2), "temperature": (0.0, 2.0)}
SOFT_LEARNER = {name: OFF_POLICY_LEARNER[name] for name in OFF_POLICY}
SOFT_REPLAYED = REPLAYED | {
    "settings": soft.SETTINGS,
    "functions": {"policy": world.squashed, "critic": world.action_value, "init_params": world.init_squashed},
    "memory": soft.memory,
    "seen": soft.seen,
    "given": soft.given,
    "state_values": soft.value_at_location,
}
DISCRETE = SOFT_REPLAYED | {
    "world": functools.partial(world.world, pays_at_once=True),
    "functions": {"policy": world.logits, "critic": world.action_values, "init_params": world.init_logits},
    "seen": functools.partial(soft.seen, discrete=True),
    "chosen": lambda row: np.tanh((row[1] - row[0]) / 2),
    "state_values": soft.value_of_tables,
}

RECIPES |= {
    "sac": Entry(
        sac,
        SOFT | {"entropy_per_action": -1.0},
        SOFT_CHANGES | {"entropy_per_action": (0.5, -3.0)},
        # The entropy is always above this: the temperature falls to nothing, and values are those of the reward.
        SOFT_LEARNER | {"entropy_per_action": -50.0},
        functools.partial(soft.sac, learned=True),
        **SOFT_REPLAYED,
    ),
    "sac, fixed temperature": Entry(
        sac,
        SOFT,
        SOFT_CHANGES,
        SOFT_LEARNER | {"temperature": 0.005},
        functools.partial(soft.sac, learned=False),
        **SOFT_REPLAYED | {"settings": soft.SETTINGS | {"learn_temperature": False}},
    ),
    "sac_discrete": Entry(
        sac_discrete,
        SOFT | {"entropy_share": 0.5},
        SOFT_CHANGES | {"entropy_share": (0.0, 1.0)},
        SOFT_LEARNER | {"entropy_share": 0.0},
        functools.partial(soft.sac_discrete, learned=True),
        **DISCRETE,
    ),
    "sac_discrete, fixed temperature": Entry(
        sac_discrete,
        SOFT,
        SOFT_CHANGES,
        SOFT_LEARNER | {"temperature": 0.005},
        functools.partial(soft.sac_discrete, learned=False),
        **DISCRETE | {"settings": soft.SETTINGS | {"learn_temperature": False}},
    ),
}


# The same with critics of the distribution of returns.
SUPPORT = {"low_value": derivations_d4pg.LOW, "high_value": derivations_d4pg.HIGH}
SPREAD = {"smallest_noise": 0.1, "largest_noise": 0.6, "noise_theta": 0.5}
SUPPORT_CHANGES = {"low_value": (-10.0, -0.7), "high_value": (9.0, 0.8)}

RECIPES |= {
    "d4pg": Entry(
        d4pg,
        OFF_POLICY | NOISE | SUPPORT | {"importance_exponent": 0.7},
        OFF_POLICY_CHANGES | NOISE_CHANGES | SUPPORT_CHANGES | {"importance_exponent": (0.0, 1.0)},
        OFF_POLICY_LEARNER | SUPPORT | {"critic_learning_rate": 0.03},
        derivations_d4pg.d4pg,
        **REPLAYED
        | {
            "settings": derivations_d4pg.SETTINGS,
            "functions": derivations_d4pg.FUNCTIONS,
            "seen": derivations_d4pg.seen,
            "given": derivations_d4pg.targets,
            "state_values": derivations_d4pg.value_at_mode,
        },
    ),
    "fasttd3": Entry(
        fasttd3,
        OFF_POLICY | SMOOTHING | SUPPORT | SPREAD | {"weight_decay": 0.1},
        OFF_POLICY_CHANGES
        | SUPPORT_CHANGES
        | {"smoothing": (0.0, 1.0), "smoothing_clip": (np.inf, 0.05)}
        | {"smallest_noise": (0.0, 0.5), "largest_noise": (0.1, 2.0), "noise_theta": (1.0, 0.1)}
        | {"weight_decay": (0.0, 1.0)},
        {name: x for name, x in OFF_POLICY_LEARNER.items() if name != "noise"}
        | {
            "critic_learning_rate": 0.03,
            "smoothing": 0.1,
            "weight_decay": 0.0,
            "noise_theta": 1.0,
            "largest_noise": 0.8,
        },
        derivations_fasttd3.fasttd3,
        **REPLAYED
        | {
            "settings": derivations_fasttd3.SETTINGS,
            "functions": derivations_fasttd3.FUNCTIONS,
            "seen": derivations_fasttd3.seen,
            "given": derivations_fasttd3.targets,
            "state_values": derivations_d4pg.value_at_mode,
        },
    ),
}

# The same for several agents, each with tables of its own: critics of what all see and do.
MADDPG_LEARNER = OFF_POLICY_LEARNER | {"learning_rate": 0.03, "critic_learning_rate": 0.05, "target_rate": 0.2}
MADDPG_LEARNER |= {"noise": 0.7}
OF_TWO: dict[str, Any] = REPLAYED | {
    "world": world.two_agents,
    "functions": {
        "policy": world.deterministic,
        "critic": world.joint_value,
        "init_params": world.init_joint_quadratics,
    },
    "num_updates": 500,  # six features of two actions, which settle more slowly than three
    "memory": derivations_maddpg.memory_of,
    "seen": derivations_maddpg.seen,
    "chosen": lambda rows: np.tanh(rows.min()),  # of the agent that is further off
    "state_values": derivations_maddpg.value_at_modes,
}

RECIPES |= {
    "maddpg": Entry(
        maddpg,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        MADDPG_LEARNER,
        derivations_maddpg.maddpg,
        **OF_TWO,
    ),
    "maddpg_inference": Entry(
        maddpg_inference,
        OFF_POLICY | NOISE | {"guess_learning_rate": 0.05, "entropy_coef": 0.2},
        OFF_POLICY_CHANGES | NOISE_CHANGES | {"guess_learning_rate": (0.0, 0.2), "entropy_coef": (0.0, 0.9)},
        MADDPG_LEARNER | {"entropy_coef": 0.001},
        more_maddpg.of_inference,
        parts=("actor", "critic", "guess"),
        **OF_TWO
        | {
            "functions": OF_TWO["functions"]
            | {"guess": more_maddpg.guess, "init_params": more_maddpg.init_with_guesses},
            "memory": more_maddpg.memory_with_guesses,
            "given": more_maddpg.targets_with_guesses,
        },
    ),
    "maddpg_ensemble": Entry(
        maddpg_ensemble,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        MADDPG_LEARNER,
        more_maddpg.of_ensemble,
        **OF_TWO
        | {
            "settings": replayed.SETTINGS | {"num_policies": more_maddpg.NUM_POLICIES},
            "functions": OF_TWO["functions"] | {"init_params": more_maddpg.init_policies},
            "memory": more_maddpg.memory_of_policies,
            "seen": more_maddpg.seen,
            "state_values": more_maddpg.value_at_modes,
        },
    ),
}

# Those that learn action values of each window, without a replay.
RECIPES |= {
    "reppo": Entry(
        reppo,
        {"learning_rate": 0.05, "discount": 0.9, "lam": 0.8, "max_kl": 0.05, "entropy_per_action": -0.5}
        | {"temperature": 0.2, "multiplier": 0.5, "sigma": 0.75, "max_grad_norm": 1e9}
        | derivations_reppo.BINS,
        {name: CHANGES[name] for name in ("learning_rate", "discount", "max_grad_norm")}
        | {"lam": (0.0, 1.0), "max_kl": (1e3, 0.005), "entropy_per_action": (0.5, -3.0)}
        | {"temperature": (1e-3, 1.0), "multiplier": (1e-3, 5.0)}
        | {"low_value": (-8.0, 0.2), "high_value": (12.0, 0.8), "sigma": (0.5, 2.0)},
        # The entropy is always above what is asked for: the temperature falls to nothing, values are those of rewards.
        {"discount": 0.8, "entropy_per_action": -50.0, "temperature": 0.01, "max_kl": 0.2},
        derivations_reppo.reppo,
        SHUFFLED | {"num_bins": derivations_reppo.NUM_BINS},
        ("next", "act", "target", "shuffle", "draw"),
        {
            "policy": derivations_reppo.policy,
            "critic": derivations_reppo.logits,
            "init_params": derivations_reppo.init_params,
        },
        world=world.continuous,
        acting=derivations_reppo.acting,
        draws=2,  # the others go to distributions
        plays_itself=False,  # a sample of a continuum earns nearly 1, and not 1
        chosen=lambda row: np.tanh(row[0]),
        memory=derivations_reppo.memory_of,
        given=derivations_reppo.given,
        state_values=derivations_reppo.value_at_location,
    ),
}


OF_EACH_KIND = ("ppo", "impala", "d4pg", "svpg")
"""Where a law is the same for all in nature, the default tests take these: states of each kind; others are slow."""


@functools.cache
def subject(name: str) -> Subject:
    """The recipe with its programs."""
    return Subject(RECIPES[name])
