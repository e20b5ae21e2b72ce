"""The tests of this folder import their world, their table and their derivations from beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
