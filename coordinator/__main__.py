"""``python -m coordinator``: the service that sees the fleet."""

from __future__ import annotations

import sys

from coordinator.app import run
from coordinator.process import main
from coordinator.settings import CoordinatorSettings

ABOUT = "Answers devices at boot (POST /xiaozhi/ota/) with the edge they shall use. Settings come from COORDINATOR_* variables."

if __name__ == "__main__":
    sys.exit(main(CoordinatorSettings, run, program="python -m coordinator", about=ABOUT))
