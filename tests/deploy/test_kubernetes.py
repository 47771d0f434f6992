"""deploy/kubernetes: valid for the API, and no pod can do more than it has to."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"


@pytest.fixture(params=["base", "gpu"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What is sent to the cluster."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("there is no kubectl")
    command = [program, "kustomize", str(FOLDER / request.param)]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def templates(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods, by the names of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"] for one in manifests if one["kind"] in ("Deployment", "Job")
    }


def test_they_are_valid(manifests: list[dict[str, Any]]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    assert {one["kind"] for one in manifests} >= {
        "Job",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for manifest in manifests:
        validator.validate(manifest, validator.latest_version(), strict=True)


def test_pods_are_confined(manifests: list[dict[str, Any]]) -> None:
    pods = templates(manifests)
    assert len(pods) == 7
    for name, template in pods.items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
            assert {"mountPath": "/tmp", "name": "tmp"} in container["volumeMounts"], name  # noqa: S108


def test_services_are_watched_and_images_pinned(manifests: list[dict[str, Any]]) -> None:
    for name, template in templates(manifests).items():
        for container in template["spec"]["containers"]:
            assert name == "dynrec-migrate" or container["livenessProbe"], name
            assert ":" in container["image"], name
            assert not container["image"].endswith(":latest"), name


def test_selectors_find_their_pods(manifests: list[dict[str, Any]]) -> None:
    labels = [template["metadata"]["labels"] for template in templates(manifests).values()]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        assert [one for one in labels if wanted.items() <= one.items()], manifest["metadata"]["name"]


def test_passwords_are_files(manifests: list[dict[str, Any]]) -> None:
    for name, template in templates(manifests).items():
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key", "")
                assert "password" not in key, name


def test_encoders_ask_for_a_gpu_where_there_is_one(
    request: pytest.FixtureRequest, manifests: list[dict[str, Any]]
) -> None:
    (container,) = templates(manifests)["dynrec-worker-encode"]["spec"]["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) is ("gpu" in request.node.callspec.id)
