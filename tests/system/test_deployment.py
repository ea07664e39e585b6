"""What `deploy/` holds: rendered and validated offline, and held against the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from calidrift_agent._sidecar import DEFAULT_PORT
from calidrift_analyzer.config import load_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "overlays/example-service", "overlays/production")
KUBERNETES = ("1.29", "1.30", "1.31", "1.32", "1.33")
COMPOSE = DEPLOY / "compose"
ANALYZER_PORT = 9465
SIDECAR_PORT = 9464


def required(program: str) -> str:
    """Path of a program; without it the test is skipped, or fails where it must run."""
    found = shutil.which(program)
    if found is None:
        reason = f"{program} is not on this machine"
        if os.environ.get("CALIDRIFT_REQUIRE_SYSTEM") == "1" and program != "kubectl":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*command: str, cwd: Path = ROOT) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict]]:
    kubectl = required("kubectl")
    return {
        name: list(yaml.safe_load_all(run(kubectl, "kustomize", str(DEPLOY / "kubernetes" / name))))
        for name in OVERLAYS
    }


def pods(documents):
    for document in documents:
        if document["kind"] in ("StatefulSet", "Deployment"):
            yield document["spec"]["template"]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_object(rendered, version, tmp_path):
    import kubernetes_validate

    objects = 0
    for documents in rendered.values():
        for document in documents:
            if document["apiVersion"].startswith("monitoring.coreos.com/"):
                continue
            kubernetes_validate.validate(document, version, strict=True)
            objects += 1
    assert objects >= 10


def test_a_mistake_in_an_object_would_be_found(rendered):
    import kubernetes_validate

    broken = of_kind(rendered["base"], "StatefulSet")[0]
    broken["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "9465"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.29", strict=True)
    broken["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 9465


def operator_schema(kind: str) -> dict:
    folder = os.environ.get("CALIDRIFT_SCHEMAS")
    folders = [Path(folder)] if folder else sorted(ROOT.parent.glob("*/schemas"))
    for one in folders:
        path = one / f"{kind.lower()}s.yaml"
        if path.is_file():
            definition = yaml.safe_load(path.read_text(encoding="utf-8"))
            return closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    pytest.skip("no CRDs of the Prometheus operator here: name their folder in CALIDRIFT_SCHEMAS")


def closed(schema):
    """The schema with every object closed, as the API server prunes and we would not notice."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        return schema
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_the_operator_accepts_its_objects(rendered, kind):
    schema = operator_schema(kind)
    schema["properties"]["metadata"] = {"type": "object"}
    found = of_kind(rendered["overlays/production"], kind)
    assert found
    for document in found:
        Draft202012Validator(schema).validate(document)
        broken = {**document, "spec": {**document["spec"], "selectr": {}}}
        assert not Draft202012Validator(schema).is_valid(broken)


def test_pods_run_as_nobody_on_a_read_only_root(rendered):
    seen = 0
    for documents in rendered.values():
        for pod in pods(documents):
            spec = pod["spec"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["automountServiceAccountToken"] is False
            for container in (*spec["initContainers"], *spec["containers"]):
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert "memory" in container["resources"]["limits"]
                seen += 1
            for volume in spec["volumes"]:
                assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"]
    assert seen >= 6


def test_the_analyzer_is_one_process_on_one_volume(rendered):
    (analyzer,) = of_kind(rendered["base"], "StatefulSet")
    assert analyzer["spec"]["replicas"] == 1
    (claim,) = analyzer["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_monitors_select_what_is_there(rendered):
    production, example = rendered["overlays/production"], rendered["overlays/example-service"]
    (monitor,) = of_kind(production, "ServiceMonitor")
    (service,) = of_kind(production, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["http"]
    assert service["spec"]["ports"][0]["port"] == ANALYZER_PORT

    (monitor,) = of_kind(production, "PodMonitor")
    (deployment,) = of_kind(example, "Deployment")
    pod = deployment["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    sidecar = pod["spec"]["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports == {monitor["spec"]["podMetricsEndpoints"][0]["port"]: SIDECAR_PORT}


def test_clients_are_let_in_by_the_label_that_they_bear(rendered):
    (policy,) = of_kind(rendered["base"], "NetworkPolicy")
    (namespace,) = of_kind(rendered["overlays/example-service"], "Namespace")
    (rule,) = policy["spec"]["ingress"]
    selected = rule["from"][0]["namespaceSelector"]["matchLabels"]
    assert selected.items() <= namespace["metadata"]["labels"].items()
    assert rule["ports"][0]["port"] == ANALYZER_PORT


@pytest.mark.parametrize(
    "path", ["kubernetes/base/calidrift.toml", "compose/analyzer/calidrift.toml"]
)
def test_the_configurations_are_read_by_the_analyzer(path):
    config = load_config(DEPLOY / path)
    assert config.service.port == ANALYZER_PORT
    assert config.service.tokens is not None  # it listens beyond loopback


def test_ports_agree_with_the_code():
    assert DEFAULT_PORT == SIDECAR_PORT
    for name, port in (("analyzer", ANALYZER_PORT), ("sidecar", SIDECAR_PORT), ("demo", 8000)):
        text = (DEPLOY / "containers" / f"{name}.Containerfile").read_text(encoding="utf-8")
        assert re.findall(r"^EXPOSE (\d+)$", text, re.MULTILINE) == [str(port)]


def test_images_copy_what_exists_and_run_as_nobody():
    files = sorted((DEPLOY / "containers").glob("*.Containerfile"))
    assert len(files) == 3
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() == ignored
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert "USER 65532:65532" in text.split("FROM ")[-1]
        for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
            for source in copied.split():
                assert (ROOT / source).exists(), source
                assert source in allowed, f"{source} is not in the build context"


def commands():
    """Command lines of `calidrift` in images, units and manifests, as words."""
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        for line in re.findall(r"^ExecStart=(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield path.name, shlex.split(line)[1:]
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    yield "compose", compose["services"]["analyzer"]["command"]
    for name in ("base/analyzer.yaml", "overlays/example-service/deployment.yaml"):
        text = (DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            for pod in pods([document]):
                spec = pod["spec"]
                for container in (*spec["initContainers"], *spec["containers"]):
                    if container.get("args"):
                        yield name, container["args"]


def test_commands_exist_with_the_options_that_are_used():
    """Each is called with --help at its end: unknown options and commands end with status 2."""
    found = list(commands())
    assert len(found) == 5
    for where, words in found:
        ended = subprocess.run(
            [Path(sys.executable).with_name("calidrift"), *words, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, (where, ended.stderr)
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        for option in options:
            assert option in ended.stdout, (where, option)


def test_the_compose_file_is_valid_and_binds_to_loopback():
    run(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
        str(COMPOSE / "compose.yaml"),
    )  # fmt: skip
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for one in services.values():
        for volume in one.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith(".") and "secrets" not in source:
                assert (COMPOSE / source).resolve().exists(), source
        if one.get("ports"):
            assert "healthcheck" in one


def test_the_secrets_are_tokens_that_the_analyzer_accepts(tmp_path):
    from calidrift_analyzer.service._tokens import Scope, Tokens

    shutil.copy(COMPOSE / "make-secrets.sh", tmp_path)
    run("sh", str(tmp_path / "make-secrets.sh"))
    before = (tmp_path / "secrets" / "tokens.toml").read_text(encoding="utf-8")
    tokens = Tokens.load(tmp_path / "secrets" / "tokens.toml", "")
    scopes = {
        name: tokens.bearer((tmp_path / "secrets" / f"{name}.token").read_text()).scopes
        for name in ("read", "trigger", "promote")
    }
    assert scopes["read"] == {Scope.READ}
    assert scopes["trigger"] == {Scope.TRIGGER}
    assert Scope.PROMOTE in scopes["promote"]
    run("sh", str(tmp_path / "make-secrets.sh"))  # again: nothing is made anew
    assert (tmp_path / "secrets" / "tokens.toml").read_text(encoding="utf-8") == before


def test_prometheus_and_alertmanager_accept_their_files(tmp_path):
    promtool, amtool = required("promtool"), required("amtool")
    # The files name paths inside their containers; the check wants them here.
    text = (COMPOSE / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    rules = ROOT / "dashboards" / "prometheus"
    assert list(rules.glob("*.yml"))
    (tmp_path / "read.token").write_text("secret")
    text = text.replace("/etc/prometheus/rules", str(rules))
    text = text.replace("/run/secrets/read.token", str(tmp_path / "read.token"))
    (tmp_path / "prometheus.yml").write_text(text)
    run(promtool, "check", "config", str(tmp_path / "prometheus.yml"))
    run(amtool, "check-config", str(COMPOSE / "alertmanager" / "alertmanager.yml"))


def test_alertmanager_calls_a_path_that_the_service_has():
    from calidrift_analyzer.service._api_hooks import hook_router

    text = (COMPOSE / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    (url,) = re.findall(r"url: http://analyzer:9465(\S+)", text)
    assert url in {route.path for route in hook_router.routes}


def test_units_name_files_that_are_installed():
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        text = path.read_text(encoding="utf-8")
        for needed in ("NoNewPrivileges=yes", "ProtectSystem=strict", "User=calidrift"):
            assert needed in text
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert "calidrift" in tomllib.load(file)["project"]["scripts"]
