"""Answer hard prompts: workers that serve pools' names over NATS from replicas with an OpenAI-compatible API (vLLM).

* ``upstream``: one replica as a Completer over the streaming HTTP API; ``chat``: the prompt as its request; ``connections``: its connections.
* ``pool``: many replicas as one Completer. What it decides by is pure: ``choice`` (whom to ask), ``ejection`` (whom to leave alone),
  ``replica`` (what is known of one), ``vllm_metrics`` (what vLLM says of itself).
* ``worker``, ``worker_answers``: the queue group, cancels, beats around a Completer. ``admission``: which request may go on, and when (pure).
* ``cluster_config``: the cluster's YAML as checked pools. * ``pool_metrics``: the pools at /metrics.
* ``discovery``: which replicas a pool has. * ``scaling``, ``hours``: how many it should have (pure). * ``removal``: which pods go (pure).
* ``scaler``: reads, decides, drains, writes. * ``readings``: asks the replicas' metrics pages.
* ``app``, ``settings``, ``__main__``: composition root and ``python -m cloud``.
"""
