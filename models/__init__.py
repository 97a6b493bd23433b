"""What runs, and the words everything else is written in.

Three groups live here:

* **Nouns** (standard library and msgspec only): ``speech`` (AudioFrame, Utterance, Transcript, SpeechChunk), ``prompts`` (Message,
  Prompt, CompletionDelta, Usage), ``errors`` (the tree), ``engines`` (one protocol and one verb per stage).
* **Engines**, one library each and named after it: ``silero`` (VAD), ``smart_turn`` (end of turn), ``sensevoice`` and ``whisper``
  (ASR), ``llama`` (edge LLM: ``llama_scheduler`` decides, ``llama_thread`` runs it, ``llama_engine`` is the C interface), ``kokoro`` and
  ``piper`` (TTS), ``voices`` (a sentence to the voice that speaks its language), ``scripted`` (every stage with planned delays and
  failures). ``slots``, ``batching`` and ``limits`` are what they share; ``fbank``, ``log_mel`` and ``normalize`` prepare what they take.
* **Factory** (``factory/``, an extra of its own): makes models: quantized ``variants``, and twins with random weights.
* **Catalogue**: ``catalog`` and ``catalog.toml`` (what exists, pinned), ``sources`` (where it comes from), ``mirror`` (the site's own
  copy, asked first), ``store`` (where it lies on disk).

    AudioFrame --VoiceDetector--> probability      Utterance --Recognizer--> Transcript
    Prompt --Completer--> CompletionDelta ...      sentence --Synthesizer--> SpeechChunk ...
"""
