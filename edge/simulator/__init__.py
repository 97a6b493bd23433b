"""Stock firmware 2.4 as a client: one simulated device for ``xiaozhi-fleet say``, the demo, tests and benchmarks.

    bootstrap ──address──► client ──socket──► device ──┬─ firmware   what a device does when, without I/O or clock
                                                       ├─ playback   its 40-packet queue and loudspeaker, so a pacing mistake is a gap
                                                       └─ uplink     its microphone in real time: speech, then silence

* ``client``: ``connect()``, the WebSocket as the firmware opens it; start here to use a device.
* ``device``: ``Device.ask()`` holds one turn, ``Device.interrupt()`` presses the button.
* ``turn``: what a device went through, ``TurnResult`` and its ``problems``.
* ``bootstrap``: the question at boot and what firmware makes of the answer.
* ``sound``: WAV files, sample rates, where speech ends; ``voice``: sentences spoken by the starter voices.
"""
