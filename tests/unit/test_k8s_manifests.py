"""The manifests fit together: what names something names something that is there, and pods are hardened."""

import re
import tomllib
from fnmatch import fnmatchcase

import pytest

from support.k8s_objects import (
    CLUSTER_SCOPED,
    INPUTS_DIGEST,
    OVERLAYS,
    RENDERED,
    ROOT,
    Object,
    containers,
    inputs_digest,
    jobs,
    labels,
    of_kind,
    one,
    pods,
    read,
    rendered,
    selects,
)

EXTERNAL_SECRETS = {"tessera-etcd-client"}
"""What the reader of k8s/README.md makes."""

overlays = pytest.mark.parametrize("overlay", OVERLAYS)


def _all(overlay: str) -> tuple[Object, ...]:
    """Return the objects of an overlay together with the Jobs and pods that run beside them."""
    return (*rendered(overlay), *jobs())


def _pods_of(overlay: str) -> list[Object]:
    return [pod for _, pod in pods(_all(overlay))]


def test_the_rendered_files_are_those_of_the_sources() -> None:
    digest = (RENDERED / INPUTS_DIGEST).read_text("utf-8").strip()
    assert digest == inputs_digest(), "k8s/ has changed: run `make k8s-render` (it needs kubectl or kustomize)"


@overlays
def test_every_object_is_there_once_and_in_the_namespace(overlay: str) -> None:
    objects = rendered(overlay)
    names = [(content["kind"], content["metadata"]["name"]) for content in objects]
    assert len(set(names)) == len(names) > 20
    for content in objects:
        expected = None if content["kind"] in CLUSTER_SCOPED else "tessera"
        assert content["metadata"].get("namespace") == expected, content["metadata"]["name"]


@overlays
def test_services_and_controllers_select_pods(overlay: str) -> None:
    for service in of_kind(rendered(overlay), "Service"):
        found = [pod for pod in _pods_of(overlay) if selects({"matchLabels": service["spec"]["selector"]}, labels(pod))]
        assert len(found) == 1, service["metadata"]["name"]
        names = {port["name"] for container in containers(found[0]) for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names, service["metadata"]["name"]
    for content in of_kind(rendered(overlay), "Deployment", "StatefulSet"):
        pod = content["spec"]["template"]
        assert selects(content["spec"]["selector"], labels(pod))
        for rule in pod["spec"].get("topologySpreadConstraints", []):
            assert rule["labelSelector"] == content["spec"]["selector"]
    for content in of_kind(rendered(overlay), "StatefulSet"):
        service = one(rendered(overlay), "Service", content["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert selects(content["spec"]["selector"], service["spec"]["selector"])


@overlays
def test_a_selector_that_selects_nothing_is_a_mistake(overlay: str) -> None:
    budgets = {content["metadata"]["name"] for content in of_kind(rendered(overlay), "PodDisruptionBudget")}
    assert budgets == {"tessera-router", "tessera-shard"}
    for content in of_kind(rendered(overlay), "PodDisruptionBudget"):
        found = [pod for pod in _pods_of(overlay) if selects(content["spec"]["selector"], labels(pod))]
        assert len(found) == 1
    for policy in of_kind(rendered(overlay), "NetworkPolicy"):
        spec = policy["spec"]
        chosen = [pod for pod in _pods_of(overlay) if selects(spec["podSelector"], labels(pod))]
        assert chosen, policy["metadata"]["name"]
        for rule in spec.get("ingress", []):
            for port in rule["ports"]:
                names = {p["name"] for pod in chosen for c in containers(pod) for p in c.get("ports", [])}
                assert port["port"] in names, policy["metadata"]["name"]
        for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
            for peer in (*rule.get("from", []), *rule.get("to", [])):
                if "podSelector" not in peer or "namespaceSelector" in peer:
                    continue
                found = [pod for pod in _pods_of(overlay) if selects(peer["podSelector"], labels(pod))]
                assert found, policy["metadata"]["name"]
                if "to" in rule:
                    open_ports = {p["containerPort"] for pod in found for c in containers(pod) for p in c["ports"]}
                    assert {port["port"] for port in rule["ports"]} <= open_ports, policy["metadata"]["name"]


@overlays
def test_everything_is_denied_that_no_policy_allows(overlay: str) -> None:
    deny = one(rendered(overlay), "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@overlays
def test_volumes_are_mounted_and_lead_somewhere(overlay: str) -> None:
    objects = _all(overlay)
    made = {content["spec"]["secretName"] for content in of_kind(objects, "Certificate")}
    for name, pod in pods(objects):
        owner = next(content for content in objects if f"{content['kind']} {content['metadata'].get('name')}" == name)
        claims = {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
        assert mounted == claims | volumes.keys(), name
        for volume in volumes.values():
            if "configMap" in volume:
                one(objects, "ConfigMap", volume["configMap"]["name"])
            elif "persistentVolumeClaim" in volume:
                one(objects, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            elif "secret" in volume:
                assert volume["secret"]["secretName"] in made | EXTERNAL_SECRETS, name
            else:
                assert volume["emptyDir"]["sizeLimit"], name


@overlays
def test_what_serves_mounts_the_repository_read_only(overlay: str) -> None:
    for name, pod in pods(_all(overlay)):
        for container in containers(pod):
            for mount in container["volumeMounts"]:
                if mount["name"] == "repository":
                    assert mount.get("readOnly", False) is ("upload" not in name), name


@overlays
def test_pods_satisfy_the_restricted_standard(overlay: str) -> None:
    for name, pod in pods(_all(overlay)):
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert not any("hostPath" in volume for volume in spec.get("volumes", [])), name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


@overlays
def test_memory_is_guaranteed_and_cpu_is_not_throttled(overlay: str) -> None:
    for content in of_kind(rendered(overlay), "Deployment", "StatefulSet"):
        for container in containers(content["spec"]["template"]):
            resources = container["resources"]
            assert "cpu" in resources["requests"]
            assert "cpu" not in resources["limits"]
            if container["name"] != "etcd":
                assert resources["requests"]["memory"] == resources["limits"]["memory"]
            assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()


@overlays
def test_accounts_roles_and_classes_exist(overlay: str) -> None:
    objects = _all(overlay)
    for _, pod in pods(objects):
        if "serviceAccountName" in pod["spec"]:
            account = one(objects, "ServiceAccount", pod["spec"]["serviceAccountName"])
            assert account["automountServiceAccountToken"] is False
        if "priorityClassName" in pod["spec"]:
            one(objects, "PriorityClass", pod["spec"]["priorityClassName"])
    (binding,) = of_kind(objects, "RoleBinding")
    one(objects, "Role", binding["roleRef"]["name"])
    for subject in binding["subjects"]:
        assert subject["namespace"] == "tessera"
        one(objects, "ServiceAccount", subject["name"])
    (role,) = of_kind(objects, "Role")
    for rule in role["rules"]:  # no more than it needs
        assert rule["resources"] == ["statefulsets/scale"]
        assert set(rule["verbs"]) == {"get", "patch"}
        for name in rule["resourceNames"]:
            one(objects, "StatefulSet", name)


@overlays
def test_the_autoscaler_alone_says_how_many_routers_there_are(overlay: str) -> None:
    (scaler,) = of_kind(rendered(overlay), "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    deployment = one(rendered(overlay), target["kind"], target["name"])
    assert deployment["apiVersion"] == target["apiVersion"]
    assert "replicas" not in deployment["spec"]
    assert 2 <= scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


@overlays
def test_the_scale_guard_is_about_the_set_and_the_account_that_are_there(overlay: str) -> None:
    objects = rendered(overlay)
    policy = one(objects, "ValidatingAdmissionPolicy", "tessera-scale-guard")["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    (name,) = rule["resourceNames"]
    one(objects, "StatefulSet", name)
    assert rule["resources"] == ["statefulsets", "statefulsets/scale"]
    assert "paramKind" not in policy
    (account,) = re.findall(r":(tessera-\w+)'", policy["validations"][0]["expression"])
    one(objects, "ServiceAccount", account)
    assert [rule["resourceNames"] for rule in one(objects, "Role", account)["rules"]] == [[name]]
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == "tessera-scale-guard"
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "tessera"
    }


@overlays
def test_images_are_named_with_a_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    found = {container["image"] for _, pod in pods(rendered(overlay)) for container in containers(pod)}
    for image in found - ({"tessera"} if overlay == "chart" else set()):
        name, _, tag = image.rpartition(":")
        if name.endswith("tessera"):
            assert tag == version
        else:
            assert (name.rpartition("/")[2], bool(re.fullmatch(r"v3\.\d+\.\d+", tag))) == ("etcd", True)


def test_images_of_jobs_are_those_of_the_overlays() -> None:
    for name in ("admin", "upload"):
        (kustomization,) = read(f"jobs/{name}/kustomization.yaml")
        (image,) = kustomization["images"]
        (overlay,) = read("overlays/prod/kustomization.yaml")
        assert image in overlay["images"]


@pytest.mark.parametrize("overlay", ["prod", "gpu"])
def test_certificates_name_what_is_asked_for(overlay: str) -> None:
    objects = rendered(overlay)
    issuers = {content["metadata"]["name"] for content in of_kind(objects, "Issuer")}
    for content in of_kind(objects, "Certificate"):
        assert content["spec"]["issuerRef"]["name"] in issuers
    router = one(objects, "Certificate", "tessera-router")["spec"]["dnsNames"]
    (policy,) = of_kind(objects, "BackendTLSPolicy")
    assert policy["spec"]["validation"]["hostname"] in router
    one(objects, "Service", policy["spec"]["targetRefs"][0]["name"])
    (pattern,) = one(objects, "Certificate", "tessera-shard")["spec"]["dnsNames"]
    assert fnmatchcase("tessera-shard-7.tessera-shard.tessera.svc", pattern)
    (route,) = of_kind(objects, "GRPCRoute")
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        service = one(objects, "Service", backend["name"])
        assert backend["port"] in {port["port"] for port in service["spec"]["ports"]}


def test_kind_maps_the_ports_that_the_service_has() -> None:
    (cluster,) = read("overlays/kind/cluster.yaml")
    (node,) = cluster["nodes"]
    service = one(rendered("kind"), "Service", "tessera-router")
    mapped = {mapping["containerPort"]: mapping["hostPort"] for mapping in node["extraPortMappings"]}
    assert mapped == {port["nodePort"]: port["port"] for port in service["spec"]["ports"]}
    (volume,) = of_kind(rendered("kind"), "PersistentVolume")
    assert {mount["containerPath"] for mount in node["extraMounts"]} == {volume["spec"]["hostPath"]["path"]}


@pytest.mark.parametrize("overlay", ["kind", "gpu"])
def test_a_volume_and_its_claim_name_each_other(overlay: str) -> None:
    objects = rendered(overlay)
    (volume,) = of_kind(objects, "PersistentVolume")
    claim = one(objects, "PersistentVolumeClaim", volume["spec"]["claimRef"]["name"])
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["claimRef"]["namespace"] == claim["metadata"]["namespace"]
    assert claim["spec"]["storageClassName"] == volume["spec"]["storageClassName"] == ""
    assert set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"])
