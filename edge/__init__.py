"""One edge node, about 150 devices: a gateway that holds sockets and a brain that hears, thinks and speaks.

* ``seam``: the messages between the two roles; read it first.
* ``gateway/``: ``device_protocol`` (the firmware's wire format without I/O), ``server``, ``session``, ``pacing``. No native engine here.
* ``brain/``: ``pipeline`` (the spine), ``session``, ``segmenter``, ``conversation``, ``sentences``, ``flow``, ``stage``, ``opus``.
* ``simulator``: stock firmware as a client, for ``xiaozhi-fleet say``, tests, the demo and benchmarks.
* ``assembly``, ``engines``, ``routing``, ``looking`` (the door for cameras' pictures): parts put together by settings.
* ``app``, ``settings``, ``__main__``: composition root and ``python -m edge [gateway|brain]``.
"""
