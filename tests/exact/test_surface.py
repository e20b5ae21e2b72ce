"""Every public name of `pgjax.exact`: it has a test in its room, and the shapes, dtypes and names are as documented."""

import ast
import dataclasses
import importlib
import inspect
import pathlib
import pydoc
from collections.abc import Iterator
from typing import Any, NamedTuple

import claimed_shapes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .lqr.systems import system
from .processes import garnet

HERE = pathlib.Path(__file__).parent
ROOMS = ("tabular", "lqr", "variance", "problems")
OUTSIDE = ("gauss_hermite", "groups", "join", "spectral_radius", "trajectories", "weighted_moments")
S, A, H, P, N, n, m = 3, 2, 5, 7, 4, 3, 2
SIZES = {"S": S, "A": A, "H": H, "P": P, "N": N, "n": n, "m": m, "K": 6, "D": 4, "shape": (2, 3)}


class Call(NamedTuple):
    """Example arguments of one function; `sizes` overrides those that hold for all."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  nobody writes to it
    sizes: dict[str, Any] = {}  # noqa: RUF012
    traced: bool = True  # whether the function takes tracers


FEATURES = np.sin(np.arange(float(S * A * P))).reshape(S, A, P)
PARAMS = np.cos(np.arange(float(P)))
TABLE, STATES, SCORE = np.sin(np.arange(float(S * A))).reshape(S, A), np.linspace(-1.0, 1.0, S), FEATURES
PROBS = np.exp(TABLE) / np.exp(TABLE).sum(1, keepdims=True)
BEHAVIOUR = np.full((S, A), 1 / A)


def policy_probs(params: Any) -> jax.Array:
    return jax.nn.softmax(jnp.einsum("sap,p->sa", jnp.asarray(FEATURES, params.dtype), params))


def examples() -> dict[str, Call]:
    """A call of every public function that is not a problem of the suite."""
    mdp, short = garnet(0, 0.9, None, S, A)[0], garnet(0, 0.9, H, S, A)[0]
    lqr, gain = system()
    long, scalar = system(H)[0], exact.scalar_lqr()
    x, u = np.ones((N, n)), np.ones((N, m))
    by_probs = "action_value advantage average_reward average_reward_sensitivity differential_action_value"
    by_probs += " differential_value dropped_discount_sensitivity objective sensitivity state_transition"
    by_probs += " stationary_distribution value visitation"
    by_logits = "average_reward_gradient compatible_critic dropped_discount_gradient fisher_matrix natural_gradient"
    by_logits += " policy_gradient policy_gradient_autodiff policy_gradient_unrolled policy_hessian value_gradient"
    over_time = "action_values_over_time advantages_over_time values_over_time visitation_over_time"
    of_policy = "compatible_critic_of fisher_matrix_of natural_gradient_of policy_gradient_of"
    of_gain = "check_stable closed_loop cost cost_gradient cost_matrix objective policy_gradient stable state_moment"
    weighted = "emphatic_gradient off_pac_gradient"
    scored, behaved = {"score": SCORE}, {"behaviour": BEHAVIOUR}
    return {
        **{name: Call((mdp, PROBS)) for name in by_probs.split()},
        **{name: Call((mdp, TABLE)) for name in by_logits.split()},
        **{name: Call((short, PROBS)) for name in over_time.split()},
        **{name: Call((mdp, PARAMS, policy_probs)) for name in of_policy.split()},
        **{name: Call((mdp, TABLE, STATES)) for name in weighted.split()},
        **{name: Call((mdp, PROBS, STATES)) for name in ("emphasis", "excursion_objective")},
        **{name: Call((mdp, PROBS, STATES)) for name in ("emphatic_sensitivity", "off_pac_sensitivity")},
        **{f"lqr.{name}": Call((lqr, gain), traced=name != "check_stable") for name in of_gain.split()},
        **{f"lqr.{name}": Call((long, gain)) for name in ("cost_to_go", "moments_over_time")},
        **{f"lqr_{name}_moments": Call(scalar, sizes={"P": 1}) for name in ("gpomdp", "reinforce")},
        **{name: Call((short, PROBS), scored) for name in ("optimal_parameter_baseline", "optimal_return_baseline")},
        **{name: Call((short, PROBS), scored) for name in ("reinforce_moments", "return_moments")},
        **{f"{name}_optimal_baseline": Call((mdp, PROBS), scored) for name in ("per_step", "trajectory")},
        "all_action_pair": Call((mdp, PROBS, TABLE), scored),
        "critic_gradient": Call((mdp, TABLE, TABLE)),
        "followon_spectral_radius": Call((mdp, PROBS, BEHAVIOUR)),
        "gae_bias": Call((mdp, PROBS, STATES), {"lam": 0.5}),
        "gae_pair": Call((mdp, PROBS, STATES), {"lam": 0.5, **scored}),
        "gauss_hermite": Call((2, (2, 3)), sizes={"N": 2**6}, traced=False),
        "gpomdp_pair": Call((mdp, PROBS), {"baseline": STATES, **scored}),
        "groups": Call((np.full(N, 1 / N), 2), sizes={"K": 2}, traced=False),
        "join": Call(traced=False),
        "k_step_visitation": Call((mdp, PROBS, 2)),
        "leave_one_out_moments": Call((np.ones(6), np.ones(6)), {"num_samples": 3}, {"P": 6}),
        "lqr.action_value": Call((lqr, gain, x), {"u": u}),
        "lqr.riccati": Call((lqr,)),
        "lqr.value": Call((lqr, gain, x)),
        "lqr_pathwise_moments": Call((long, gain), sizes={"P": n * m}),
        "off_pac_pair": Call((mdp, PROBS, TABLE), {**behaved, **scored}),
        "optimal_policy": Call((mdp,)),
        "optimal_value": Call((mdp,)),
        "pair_moments": Call((mdp, exact.gpomdp_pair(mdp, PROBS, score=SCORE))),
        "pair_variance": Call((mdp, exact.gpomdp_pair(mdp, PROBS, score=SCORE))),
        "pdis_pair": Call((mdp, PROBS), {**behaved, **scored}),
        "score_of": Call((PARAMS, policy_probs)),
        "sine_logits": Call((mdp,), traced=False),
        "softmax_score": Call((PROBS,)),
        "spectral_radius": Call((np.eye(N),)),
        "terminal_states": Call((mdp,)),
        "trajectories": Call((mdp, PROBS, 2), sizes={"H": 2, "N": 48}, traced=False),
        "variance_split": Call((mdp, exact.gpomdp_pair(mdp, PROBS, score=SCORE))),
        "vtrace_pair": Call((mdp, PROBS, STATES), {**behaved, **scored}),
        "vtrace_policy": Call((PROBS, BEHAVIOUR, 1.0)),
        "vtrace_value": Call((mdp, PROBS, BEHAVIOUR)),
        "weighted_moments": Call((np.ones((N, P)), np.full(N, 1 / N))),
    }


def public(room: str) -> dict[str, Any]:
    """The public names of a room, or of what stands outside the rooms; those of lqr by their full name where needed."""
    if not room:
        return {name: getattr(exact, name) for name in OUTSIDE}
    module = importlib.import_module(f"pgjax.exact.{room}")
    flat = lambda name, x: getattr(exact, name, None) is x  # noqa: E731
    return {name if flat(name, x := getattr(module, name)) else f"{room}.{name}": x for name in module.__all__}


def functions() -> dict[str, Any]:
    """Public functions, without the problems of the suite, which are built from no arrays."""
    names = {name: x for room in ("", *ROOMS) for name, x in public(room).items()}
    problems = {name for name in public("problems") if not inspect.signature(names[name]).parameters}
    built = problems | {"random_garnet", "softmax_bandit"}
    return {name: x for name, x in names.items() if not inspect.isclass(x) and name not in built}


# Every public function has a test in its room


def expect_an_error(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any("raises" in ast.unparse(item.context_expr) for item in node.items)


def called(node: ast.AST) -> Iterator[str]:
    """Names x of `exact.x` that are called, or handed to a call, but not where an error is expected."""
    for child in ast.iter_child_nodes(node):
        if expect_an_error(child):
            continue
        if isinstance(child, ast.Call):
            for part in (child.func, *child.args):
                text = ast.unparse(part)
                if text.startswith("exact.") and isinstance(part, ast.Attribute):
                    yield text.removeprefix("exact.")
        yield from called(child)


def called_in(room: str) -> set[str]:
    paths = sorted(
        (HERE / room).rglob("test_*.py") if room else [HERE / "test_enumeration.py", HERE / "test_spectrum.py"]
    )
    return {name for path in paths for name in called(ast.parse(path.read_text()))}


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_every_public_name_is_called_in_a_test_of_its_room(room):
    missing = set(public(room)) - called_in(room)
    assert not missing, f"no test under tests/exact/{room} calls {sorted(missing)}"


def test_what_only_fails_or_is_only_named_counts_as_no_call():
    source = (
        "with pytest.raises(ValueError):\n    exact.value(1)\nx = exact.objective\ny = jax.grad(exact.advantage)(2)"
    )
    assert set(called(ast.parse(source))) == {"advantage"}


def test_every_public_function_has_an_example():
    assert set(examples()) == set(functions())


# Shapes and dtypes


def shaped(function: Any, call: Call) -> Any:
    """The result of a call, its arrays only by shape and dtype where the function can be traced."""
    if not call.traced:
        return function(*call.args, **call.kwargs)
    leaves, structure = jax.tree.flatten((call.args, call.kwargs))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, (np.ndarray, jax.Array))}

    def run(arrays: dict[int, Any]) -> Any:
        args, kwargs = jax.tree.unflatten(structure, [arrays.get(i, leaf) for i, leaf in enumerate(leaves)])
        return function(*args, **kwargs)

    return jax.eval_shape(run, arrays)


def test_docstrings_claim_the_shapes_that_come_out():
    found, silent = {}, []
    for name, call in examples().items():
        if not call.args or name == "trajectories":
            continue  # results that hold a trajectory; their shapes are tested with their values
        function, result = functions()[name], shaped(functions()[name], call)
        sizes = {**SIZES, **call.sizes}
        if faults := claimed_shapes.disagreements(function, call.args, call.kwargs, result, sizes):
            found[name] = faults
        record = hasattr(result, "__dataclass_fields__")
        like_params = isinstance(result, jax.ShapeDtypeStruct) and "result like params" in function.__doc__
        if result is not None and not (record or like_params or claimed_shapes.claimed_results(function.__doc__)):
            silent.append(name)
    assert not found
    assert silent == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("value", "[S] float, reward units", "[A] float, reward units"),
        ("value", "result [S].", "result [S, A]."),
        ("state_transition", "[S, S] float", "[S, A] float"),
        ("values_over_time", "[H + 1, S] float", "[H, S] float"),
        ("terminal_states", "[S] bool", "[S] float"),
        ("objective", "Scalar float", "[S] float"),
        ("lqr.closed_loop", "gain: [m, n] float", "gain: [n, m] float"),
        ("lqr.cost_to_go", "[H + 1, n, n] and [H + 1] float", "[H + 1, n, n] and [H] float"),
        ("gpomdp_pair", "score: [S, A, P] float", "score: [S, P, A] float"),
        ("groups", "[N^K, K] int", "[N^K, N] int"),
    ],
)
def test_a_wrong_shape_in_a_docstring_is_found(name, old, new):
    function, call = functions()[name], examples()[name]
    assert function.__doc__.count(old) >= 1

    def wrong(*args: Any, **kwargs: Any) -> None:
        raise AssertionError

    wrong.__signature__, wrong.__doc__ = inspect.signature(function), function.__doc__.replace(old, new)
    sizes, result = {**SIZES, **call.sizes}, shaped(function, call)
    assert claimed_shapes.disagreements(function, call.args, call.kwargs, result, sizes) == []
    assert claimed_shapes.disagreements(wrong, call.args, call.kwargs, result, sizes)


def test_a_wrong_shape_in_the_docstring_of_a_record_is_found():
    @dataclasses.dataclass
    class Record:
        """A record.

        Args:
            mean: [A] float, a direction.
        """

        mean: Any

    call = examples()["value"]
    found = claimed_shapes.disagreements(exact.value, call.args, call.kwargs, Record(np.zeros(P)), SIZES)
    assert found == ["Record.mean is (7,), not [Claim(dims=['A'], kind='float')]"]


def narrow(tree: Any) -> Any:
    """Floating arrays in single precision, all else as it is."""
    floating = lambda x: isinstance(x, (np.ndarray, jax.Array)) and x.dtype.kind == "f"  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(x, np.float32) if floating(x) else x, tree)


def test_single_precision_is_kept_and_mixed_precision_is_taken():
    for name, call in examples().items():
        if call.traced:
            function = functions()[name]
            small = shaped(function, call._replace(args=narrow(call.args), kwargs=narrow(call.kwargs)))
            assert {x.dtype for x in jax.tree.leaves(small)} <= {np.dtype("float32"), np.dtype("bool")}, name
            # A process in float32 with a policy in float64 is a valid call, and the other way round.
            first, *rest = call.args
            for args in ((narrow(first), *rest), (first, *narrow(rest))):
                shaped(function, call._replace(args=args))


def test_every_function_takes_a_batch_under_vmap():
    for name, call in examples().items():
        if call.traced:
            one = shaped(functions()[name], call)
            leaves, structure = jax.tree.flatten((call.args, call.kwargs))
            at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (np.ndarray, jax.Array))]
            arrays = {i: np.stack([leaves[i]] * 2) for i in at}

            def run(arrays, structure=structure, leaves=leaves, name=name):
                args, kwargs = jax.tree.unflatten(structure, [arrays.get(i, x) for i, x in enumerate(leaves)])
                return functions()[name](*args, **kwargs)

            batch = jax.eval_shape(jax.vmap(run), arrays)
            assert jax.tree.map(lambda x: x.shape[1:], batch) == jax.tree.map(lambda x: x.shape, one), name


# Names


def test_help_and_dir_show_every_name():
    for module in (exact, *(importlib.import_module(f"pgjax.exact.{room}") for room in ROOMS)):
        shown = pydoc.render_doc(module, renderer=pydoc.plaintext)
        assert not [name for name in module.__all__ if name not in shown]
        assert not set(module.__all__) - set(dir(module))
        assert len(set(module.__all__)) == len(module.__all__)


def test_the_names_of_certify_are_found_and_others_are_not():
    certify = importlib.import_module("pgjax.certify")
    assert exact.certify is certify.certify
    assert exact.Candidate is certify.Candidate
    assert set(certify.__all__) <= set(exact.__all__)
    with pytest.raises(AttributeError, match=r"module 'pgjax\.exact' has no attribute 'no_such_name'"):
        _ = exact.no_such_name


def test_helpers_look_private():
    """What a public module of a room defines without underscore is listed by its room."""
    for room in ROOMS:
        package = importlib.import_module(f"pgjax.exact.{room}")
        for path in pathlib.Path(package.__path__[0]).glob("[!_]*.py"):
            module = importlib.import_module(f"{package.__name__}.{path.stem}")
            own = [k for k, x in vars(module).items() if getattr(x, "__module__", None) == module.__name__]
            open_names = {name for name in own if not name.startswith("_")}
            assert open_names <= set(package.__all__), (module.__name__, open_names - set(package.__all__))
        assert "read" in package.__doc__


def test_modules_of_the_truth_import_one_another_in_one_direction():
    """No circle, counting imports for type checking and inside functions too; certificates alone come on demand."""
    root = pathlib.Path(exact.__path__[0])
    edges: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        name = ".".join(["pgjax.exact", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        edges[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                edges[name] |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            if isinstance(node, ast.Import):
                edges[name] |= {alias.name for alias in node.names}
    edges = {name: {to for to in targets if to in edges and to != name} for name, targets in edges.items()}
    while free := [name for name, targets in edges.items() if not targets]:
        edges = {name: targets - set(free) for name, targets in edges.items() if name not in free}
    assert not edges, f"among these modules is a circle: {sorted(edges)}"
