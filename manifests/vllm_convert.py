"""A GGUF file as a directory of safetensors, which is what vLLM reads; runs in vLLM's own Python, by path.

python manifests/vllm_convert.py FILE.gguf DIRECTORY
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
_USAGE = 64
"""Exit status of a command that was called wrongly (sysexits.h)."""


def convert(source: Path, target: Path) -> None:
    """Write weights in bfloat16, configuration and tokenizer of ``source`` into an existing ``target``; blocks for half a minute."""
    import torch
    import transformers
    from safetensors.torch import save_file

    _say(f"reading {source.name}")
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        sys.exit(f"{source.name}: {len(broken)} tensors hold numbers that are none, {broken[0]} among them")
    _say(f"writing {len(weights)} tensors, {sum(tensor.nbytes for tensor in weights.values()) / 1e6:.0f} MB")
    save_file(weights, str(target / WEIGHTS), metadata={"format": "pt"})
    (target / "config.json").write_text(
        json.dumps(full_weights(model.config.to_dict(), type(model).__name__), indent=1, default=str)
    )
    _say("writing the tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    if not tokenizer.chat_template:
        sys.exit(f"{source.name} has no chat template, so that nobody could talk with it")
    tokenizer.save_pretrained(str(target))


def full_weights(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    """Return a model's configuration as that of its full weights; pure."""
    kept = {key: value for key, value in config.items() if key not in {"quantization_config", "torch_dtype"}}
    return {**kept, "dtype": "bfloat16", "architectures": [architecture]}


def main(arguments: Sequence[str]) -> None:
    """Convert what the arguments name; exit with a reason when it cannot be done."""
    if len(arguments) != 2:  # noqa: PLR2004  # a file and a directory
        sys.stderr.write(f"{__doc__}\n")
        sys.exit(_USAGE)
    source, target = map(Path, arguments)
    if not source.is_file() or not target.is_dir():
        sys.exit(f"{source} must be a file and {target} a directory")
    convert(source, target)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
