"""Figures of the problems that were derived apart from the library, to the digits that are printed.

Ascent directions. A figure has one home, here; a test that needs it says to which digit it holds, for instance
``atol=PRINTED[10]``, half a unit of the tenth decimal and a little more.
"""

from types import SimpleNamespace

import numpy as np

PRINTED = {digits: 0.51 * 10.0**-digits for digits in range(5, 14)}


def rows(first: float, second: float) -> list[list[float]]:
    """A gradient with respect to the logits of two states and two actions, whose rows sum to zero."""
    return [[first, -first], [second, -second]]


# two_state at two_state_logits(), γ = 0.9, without horizon.
TWO_STATE = SimpleNamespace(
    probs=[[0.6224593312, 0.3775406688], [0.4255574832, 0.5744425168]],
    value=[7.7569552737, 8.2243516616],
    action_value=[[8.0233254212, 7.3177851456], [6.6915881209, 9.3598508205]],
    visitation=[5.1143733143, 4.8856266857],
    stationary_distribution=[0.4258823812, 0.5741176188],
    average_reward=0.8025295775,
    gradient=rows(0.8479865392, -3.1867916630),
    dropped_discount_gradient=rows(0.0706132510, -0.3744848632),
    hessian_first_row=[0.1664904820, -0.1664904820, 0.8422479731, -0.8422479731],
    hessian_second_state=0.3613976924,
    fisher=[0.1201896714, 0.1194332051],  # of each state, times [[1, -1], [-1, 1]]
    # The largest asymmetry of the Jacobian of the field that drops the discount, and its circulation around the unit
    # circle in θ(0, 0) and θ(1, 1).
    dropped_asymmetry=8.5465432e-3,
    dropped_circulation=-2.47624068e-2,
    # With the data of two_state_behaviour().
    behaviour_stationary=[0.4827586207, 0.5172413793],
    emphasis=[4.3435807274, 5.6564192726],
    emphatic_gradient=rows(0.7201855951, -3.6895634767),
    off_pac_gradient=rows(0.0800435922, -0.3373856869),
    followon_spectral_radius=1.36813785,
    # clip_rho: (the policy that V-trace evaluates, its value)
    vtrace={
        0.5: ([[0.5, 0.5], [0.8, 0.2]], [2.7066817667, 2.1404303511]),
        1.0: ([[0.5697741629, 0.4302258371], [0.6802851770, 0.3197148230]], [4.4708065045, 4.1309750771]),
        2.0: ([[0.6224593312, 0.3775406688], [0.5154789241, 0.4845210759]], [6.6386734448, 6.7649749082]),
        np.inf: ([[0.6224593312, 0.3775406688], [0.4255574832, 0.5744425168]], [7.7569552737, 8.2243516616]),
    },
    # Baselines of reward-to-go, and the variance with each (trace of the covariance, one trajectory).
    per_step_baseline=[7.5841552931, 7.8270872798],
    trajectory_baseline=[7.87336569, 8.47723599],
    variance=SimpleNamespace(none=179.43515968, value=12.94212681, per_step=13.42977662, trajectory=12.85367868),
    # λ: the variance of GAE at the exact value.
    gae_variance={0.0: 1.65898467, 0.5: 2.40652567, 0.95: 8.84405355, 1.0: 12.94212681},
    # λ: (norm of the bias, variance) of GAE at the value plus wrong_by.
    wrong_by=[0.7, -0.4],
    gae_at_wrong_value={
        0.0: (1.35457250, 2.08924243),
        0.5: (0.81061096, 2.79805405),
        0.9: (0.19242558, 7.26552249),
        1.0: (0.0, 13.80279448),
    },
    all_action_variance=1.86255480,
)

# two_state with a horizon: (∂J/∂θ(0, 0), ∂J/∂θ(1, 0), variance of reward-to-go).
TWO_STATE_HORIZON = {
    1: (0.2350037122, 0.0, 0.0669934279),
    2: (0.3230247740, -0.2003645235, 1.3595033013),
    3: (0.3768485223, -0.4556517372, 3.99767005),
    5: (0.4630769564, -0.9547680459, 12.9457397947),
}

# two_state with horizon 3: REINFORCE with the return of the episode, with no baseline, the best scalar and the best
# for each parameter; and reward-to-go without the discount of the states.
TWO_STATE_THREE = SimpleNamespace(
    reinforce_variance=7.37893277,
    scalar_baseline_variance=2.19553665,
    parameter_baseline=[1.9983696204, 1.6867856839],  # of θ(0, ·) and θ(1, ·)
    parameter_baseline_variance=2.16671636,
    dropped_gradient=rows(0.4112766421, -0.5366794263),
    dropped_variance=4.52398561,
)

# two_state with horizon 4: summing over actions at Q, and sampling them at the advantage.
TWO_STATE_FOUR = SimpleNamespace(all_action_variance=0.66663, sampled_advantage_variance=0.65556)

# (problem, logits): (objective, norm of its gradient, best objective)
SUITE = {
    ("riverswim6", "zero"): (0.0466684618, 0.0446437068, 4.66930016),
    ("riverswim6", "sine"): (0.0654721537, 0.0364509024, 4.66930016),
    ("cliff4x12", "zero"): (-150.8961022437, 130.8277133686, -7.45813417),
    ("cliff4x12", "sine"): (-338.9343788197, 274.9429010715, -7.45813417),
    ("windy7x10", "zero"): (-19.9960718450, 0.0101108229, -10.73417540),
    ("windy7x10", "sine"): (-19.9997062620, 0.0008036392, -10.73417540),
}

# logits: variance of reward-to-go on riverswim6, without baseline and with the value.
RIVERSWIM_VARIANCE = {"zero": (0.18898981, 0.15540227), "sine": (0.24772894, 0.20027996)}

# double_integrator at its gain.
DOUBLE_INTEGRATOR = SimpleNamespace(
    radius=0.92736185,
    cost_matrix=[[8.5489264804, 3.1804371279], [3.1804371279, 2.287302982]],
    state_moment=[[12.1883057176, -3.3532521261], [-3.3532521261, 5.9508620891]],
    cost=12.9585718169,
    cost_gradient=[[-5.25100867, -0.5657994964]],
    optimal_gain=[[6.6014936489, 4.5414109127]],
)

# scalar_lqr at its gain, horizon 5.
SCALAR_LQR = SimpleNamespace(
    cost=3.2484156577,
    cost_gradient=[[-2.436138911658]],
    reinforce_variance=476.1098564665,
    gpomdp_variance=262.3766239932,
    value_baseline_variance=40.8956263649,
    pathwise_variance=8.7944305669,
)
