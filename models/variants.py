"""Variants of a pulled model that ``models quantize`` made, beside the file they were made from; light, for run time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from models.errors import CatalogError

Variant = Literal["fp32", "batched", "int8", "fp16"]
"""``fp32`` is the file as it was pulled; ``batched`` the same numbers laid out for many devices at once; the others are smaller."""

MADE: tuple[Variant, ...] = get_args(Variant)[1:]
"""What has to be made first."""


def made_path(path: Path, variant: Variant) -> Path:
    """Return where ``variant`` of the model file ``path`` lies, whether it is there or not."""
    return path if variant == "fp32" else path.with_name(f"{path.stem}.{variant}{path.suffix}")


def variant_path(path: Path, variant: Variant) -> Path:
    """Return the file of ``variant`` of the pulled model file ``path``; raise CatalogError naming the command that makes it."""
    made = made_path(path, variant)
    if variant != "fp32" and not made.is_file():
        raise CatalogError(
            f"{made} is missing; make it with: xiaozhi-fleet models quantize {path.parent.name} --to {variant}"
        )
    return made


def quickest_path(path: Path) -> Path:
    """Return the file with the same numbers as the pulled ``path`` that runs fastest: ``batched`` once it is made, else ``path``."""
    made = made_path(path, "batched")
    return made if made.is_file() else path
