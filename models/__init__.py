"""What runs, and the words everything else is written in.

Three groups live here:

* **Nouns** (standard library and msgspec only): ``speech`` (AudioFrame, Utterance, Transcript, SpeechChunk), ``prompts`` (Message,
  Prompt, CompletionDelta, Usage), ``errors`` (the tree), ``engines`` (one protocol and one verb per stage).
* **Engines**, one library each and named after it: ``silero`` (VAD), ``whisper`` (ASR), ``llama`` (edge LLM), ``kokoro`` and ``piper``
  (TTS), ``voices`` (a sentence to the voice that speaks its language), ``scripted`` (every stage with planned delays and failures).
  ``slots`` and ``batching`` are what they share.
* **Catalogue**: ``catalog`` and ``catalog.toml`` (what exists, pinned), ``sources`` (where it comes from), ``store`` (where it lies on disk).

    AudioFrame --VoiceDetector--> probability      Utterance --Recognizer--> Transcript
    Prompt --Completer--> CompletionDelta ...      sentence --Synthesizer--> SpeechChunk ...
"""
