"""Choose and remember, and know the fleet: a library on the edge, a service in the middle.

* ``hierarchy``: the spine; a Completer made of Completers: remember, score, choose, ask, fall back.
* ``routing/``: pure decisions: ``complexity`` (the cold-start score), ``policy`` (score against threshold, conditions).
* ``cache/``: ``ladder`` over tiers (``memory``, ``redis_tier``, ``object_store``), ``keys`` (what may be remembered, and under which key);
  ``model_mirror`` (model files in the same bucket).
* ``wire``, ``bus``, ``remote``: the NATS contract: messages and subjects; the one module that imports nats; a Completer on the far side.
* ``cluster/``: what Kubernetes says and is told: a Service's endpoints, followed; a Deployment's scale and pods.
* ``fleet/``: ``registry`` (which edges live), ``edge_endpoints`` (as Kubernetes lists them), ``bootstrap`` (which edge a device gets), ``tokens``.
* ``openai_api/``: chat completions for people outside, in front of the pools: ``routes``, ``request``, ``choice``, ``answering``.
* ``turns``: the record of one turn, for people and tools.
* ``settings``, ``metrics``, ``probes``: what every process needs. ``app``, ``__main__``: the service.
"""
