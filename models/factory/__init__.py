"""Makes models; needs the ``build`` extra. Nothing here is imported at run time.

* ``quantize``: variants of a pulled model, out of ``silero_graph`` (Silero VAD laid out for batches).
* ``agreement``: how far a variant's ear is from the original's.
* ``signed_weights``: SenseVoice's int8 weights as newer processors multiply them fastest.
* ``sensevoice_twin``, ``qwen_twin``: production models with random weights, for speed and memory.
"""
