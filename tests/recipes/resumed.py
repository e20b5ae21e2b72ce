"""The runs that are stopped, saved and taken up again in a process of their own."""

import world
from table import RECIPES

SHORT = {"num_envs": world.NUM_ENVS, "num_steps": 2, "total_steps": 3 * world.NUM_ENVS * 2}

make = {name: lambda entry=entry: entry.make(**SHORT) for name, entry in RECIPES.items()}
