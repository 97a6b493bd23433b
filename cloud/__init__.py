"""Answer hard prompts: workers that serve a pool's name over NATS from an OpenAI-compatible server.

* ``upstream``: a Completer over the streaming HTTP API. * ``worker``: the queue group, cancels, beats and limits around it.
* ``app``, ``settings``, ``__main__``: composition root and ``python -m cloud``.
"""
