"""``python -m cloud``: one worker of a pool."""

from __future__ import annotations

import sys

from cloud.app import run
from cloud.settings import CloudSettings
from coordinator.process import main

ABOUT = "Serves a pool's name over NATS from an OpenAI-compatible server (vLLM). Settings come from CLOUD_* variables."

if __name__ == "__main__":
    sys.exit(main(CloudSettings, run, program="python -m cloud", about=ABOUT))
