"""The runs that are stopped, saved and taken up again in a process of their own."""

import world
from table import RECIPES

SHORT = {"num_envs": world.NUM_ENVS, "num_steps": 2, "total_steps": 3 * world.NUM_ENVS * 2}


def step_size(name: str, x: float) -> dict[str, float]:
    """What sets the length of a recipe's steps, as a keyword."""
    return {"learning_rate" if "learning_rate" in RECIPES[name].base else "max_kl": x}


make = {name: lambda entry=entry: entry.make(**SHORT) for name, entry in RECIPES.items()}
