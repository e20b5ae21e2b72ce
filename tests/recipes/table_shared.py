"""Hyper-parameters that the entries of several recipes start from."""

import numpy as np

COMMON = {"learning_rate": 0.05, "discount": 0.9, "max_grad_norm": 1e9, "anneal": 1.0}
CRITIC = {"lam": 0.8, "value_coef": 0.5, "entropy_coef": 0.3}
CHANGES = {"learning_rate": (0.0, 0.2), "discount": (0.0, 1.0), "max_grad_norm": (np.inf, 0.1), "anneal": (0.0, 0.5)}
CRITIC_CHANGES = {"lam": (0.0, 1.0), "value_coef": (0.0, 2.0), "entropy_coef": (0.0, 1.0)}
LEARNER = {"learning_rate": 0.1, "discount": 0.8, "max_grad_norm": 1e9}
SHUFFLED = {"num_epochs": 2, "num_minibatches": 4, "normalize_rewards": False}
