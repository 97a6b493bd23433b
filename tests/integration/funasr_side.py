"""Runs in an environment with funasr-onnx, which pins an old NumPy: what FunASR itself makes of the same sound and the same model.

    PYTHON tests/integration/funasr_side.py MODEL_DIR SOUNDS.npz RESULT.npz

SOUNDS holds int16 arrays; RESULT gets ``features_NAME`` and, when the directory holds a model, ``tokens_NAME`` and ``text_NAME``.
tests/models/data/funasr_fbank.npz was made with it from a directory with ``am.mvn`` and ``config.yaml`` only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(model_dir: str, sounds: str, result: str) -> None:
    import yaml
    from funasr_onnx import SenseVoiceSmall
    from funasr_onnx.utils.frontend import WavFrontend

    config = yaml.safe_load(Path(model_dir, "config.yaml").read_text())["frontend_conf"]
    front = WavFrontend(cmvn_file=str(Path(model_dir, "am.mvn")), **config)
    has_model = Path(model_dir, "model_quant.onnx").exists()
    model = SenseVoiceSmall(model_dir, quantize=True, intra_op_num_threads=1) if has_model else None
    found: dict[str, np.ndarray] = {}
    for name, pcm in np.load(sounds).items():
        wave = pcm.astype(np.float32) / np.float32(32768)
        features, length = front.lfr_cmvn(front.fbank(wave)[0])
        found[f"features_{name}"] = features.astype(np.float32)
        if model is None:
            continue
        speech = features[np.newaxis].astype(np.float32)
        logits, lengths = model.infer(
            speech, np.array([length], np.int32), np.array([0], np.int32), np.array([14], np.int32)
        )
        best = logits[0, : lengths[0]].argmax(axis=-1)
        best = best[np.concatenate(([True], np.diff(best) != 0))]
        found[f"tokens_{name}"] = best[best != model.blank_id]
        found[f"text_{name}"] = np.array(model(wave, language="auto", textnorm="withitn")[0])
    np.savez_compressed(result, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
