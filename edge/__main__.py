"""``python -m edge [gateway|brain]``: one edge node, or one of its two roles."""

from __future__ import annotations

import sys

from coordinator.process import main
from edge.app import ROLES, run
from edge.settings import EdgeSettings

ABOUT = (
    "An edge node: the gateway holds the devices' sockets, the brain hears, thinks and speaks. Without a role both run in one process. "
    "Settings come from EDGE_* variables."
)

if __name__ == "__main__":
    sys.exit(main(EdgeSettings, run, program="python -m edge", about=ABOUT, roles=ROLES))
