"""pgjax: policy-gradient estimators in JAX, as pure functions."""
from pgjax.returns import affine_recurrence, discounted_returns, gae, lambda_returns, n_step_returns
