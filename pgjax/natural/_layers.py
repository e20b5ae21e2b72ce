"""What a run of a Flax policy shows of its layers: what goes in, what comes out, where their parameters stand."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Path = tuple[Any, ...]
Place = tuple[Path, Path | None]

MAX_BLOCK = 64
"""Up to how many numbers a leaf outside the layers may have to get its own exact block."""


class Layer(NamedTuple):
    """One dense layer or convolution of a run."""

    name: str
    place: Place  # of kernel and bias
    inputs: Array  # [*rows, *locations, I], of a convolution the patch at each location
    outputs: Array  # [*rows, *locations, O]
    num_axes: int  # of the locations: 0 for a dense layer

    @property
    def num_locations(self) -> int:
        """In how many places of a row the layer is applied."""
        return math.prod(self.outputs.shape[self.outputs.ndim - 1 - self.num_axes : -1])

    @property
    def rows(self) -> tuple[int, ...]:
        """The axes before those of the locations."""
        return self.outputs.shape[: self.outputs.ndim - 1 - self.num_axes]


class Seen(NamedTuple):
    """What the interceptor saw of a run of the network."""

    layers: list[Layer]
    leaves: list[Path]  # small ones of other modules
    calls: dict[Any, Any]  # result and arguments of each module that was called


def watching(places: dict[int, Path], seen: Seen, probes: list[Array] | None) -> Callable[..., Any]:
    """Make an interceptor that notes each layer and each small leaf of other modules, and adds probes to the outputs.

    A module that is called again on the same arrays gives what it gave: a trunk that policy and critic share counts
    once, and its scores are those of both.

    Args:
        places: where the leaves of the parameters stand, by their id.
        seen: filled in.
        probes: what to add to the output of each layer, or None.

    Returns:
        The interceptor, for ``flax.linen.intercept_methods``.
    """

    def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if kwargs or context.method_name != "__call__":
            return watched(next_fun(*args, **kwargs), args, module, context.method_name)
        leaves = tuple(map(id, jax.tree.leaves(module.variables)))
        call = type(module), module.path, leaves, tuple(map(id, args))
        if not leaves or call not in seen.calls:
            result = watched(next_fun(*args), args, module, context.method_name)
            seen.calls[call] = result, args  # the arguments are kept, or another array might get their id
        return seen.calls[call][0]

    def watched(result: Any, args: Any, module: Any, method: str) -> Any:
        own = {name: x for name, x in module.variables.get("params", {}).items() if id(x) in places}
        is_layer = isinstance(module, nn.Dense) or _is_plain_convolution(module)
        if "kernel" in own and is_layer and method == "__call__":
            result = result if probes is None else result + probes[len(seen.layers)]
            place = places[id(own["kernel"])], places[id(own["bias"])] if "bias" in own else None
            inputs = args[0].astype(jnp.promote_types(args[0].dtype, jnp.float32))
            if not isinstance(module, nn.Dense):
                inputs = _patches(module, own["kernel"].shape, inputs)
            seen.layers.append(Layer("/".join(module.path), place, inputs, result, own["kernel"].ndim - 2))
        elif not is_layer:
            new = [places[id(x)] for x in own.values() if jnp.size(x) <= MAX_BLOCK]
            seen.leaves.extend(path for path in new if path not in seen.leaves)
        return result

    return interceptor


def _is_plain_convolution(module: Any) -> bool:
    return isinstance(module, nn.Conv) and module.feature_group_count == 1 and module.mask is None


def _patches(module: nn.Conv, shape: tuple[int, ...], x: Array) -> Array:
    """What the kernel of a convolution is multiplied by at each location, as the convolution with the identity."""
    size = math.prod(shape[:-1])
    identity = jnp.eye(size, dtype=x.dtype).reshape(*shape[:-1], size)
    spread = module.clone(features=size, use_bias=False, dtype=x.dtype, parent=None)
    patches: Any = spread.apply({"params": {"kernel": identity}}, x)
    return jnp.asarray(patches)


def require_layers(seen: Seen, rows: tuple[int, ...]) -> None:
    """Check that there are layers, and that each is applied once to each row.

    Args:
        seen: of a run.
        rows: batch axes of the distribution.

    Raises:
        ValueError: if it is not so.
    """
    if not seen.layers:
        raise ValueError(
            "policy calls no flax.linen.Dense or Conv whose kernel is a leaf of params: there is nothing to factorise. "
            "Pass the parameters of a Flax module with such layers, or use scale_by_natural_gradient."
        )
    for i, layer in enumerate(seen.layers):
        if layer.place[0] in [other.place[0] for other in seen.layers[:i]]:
            raise ValueError(
                f"the layer {layer.name} is called twice on different arrays; its factors would mix two places."
            )
        if layer.rows != rows:
            raise ValueError(
                f"the layer {layer.name} sees rows {list(layer.rows)}, the distribution has {list(rows)}. "
                "Layers that are shared over further axes are not factorised here, but for convolutions."
            )


def leaf_at(tree: Any, path: Path) -> Array:
    """Look up a leaf.

    Args:
        tree: a pytree.
        path: where the leaf stands, as jax.tree_util.tree_leaves_with_path has it.

    Returns:
        The leaf.
    """
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]


def replaced(tree: Any, new: dict[Path, Array]) -> Any:
    """Put other leaves at some paths.

    Args:
        tree: a pytree.
        new: leaves by path.

    Returns:
        The tree with them.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: new.get(path, x), tree)
