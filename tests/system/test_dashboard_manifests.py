"""`kubectl kustomize` over the committed manifests, where kubectl is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "dashboards/kubernetes"


def test_kustomize_takes_the_folder():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    ended = subprocess.run(
        [kubectl, "kustomize", str(MANIFESTS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    documents = list(yaml.safe_load_all(ended.stdout))
    kinds = [document["kind"] for document in documents]
    assert sorted(set(kinds)) == ["ConfigMap", "PrometheusRule"]
    assert len(kinds) == len(list(MANIFESTS.glob("*.yaml"))) - 1
