"""`tessera k8s`: sizes the manifests from packages, writes Jobs, and takes shard servers out of the cluster."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin import changes
from admin.arguments import add_cluster
from admin.k8s import job as jobs
from admin.k8s import overlay
from admin.k8s.api import ClusterApi
from admin.k8s.quantity import format_quantity, parse_quantity
from admin.k8s.scale import in_the_way
from admin.k8s.sizing import MAX_SERVERS, ClusterSize, size_cluster
from admin.loading import wanted_models
from placement.keys import Keys
from placement.snapshot import ClusterSnapshot, replace_all
from placement.store import Store
from tessera.errors import FailedPreconditionError, InvalidArgumentError, SettingsError
from tessera.repository import Repository
from tessera.settings import ByteSize, format_bytes

_IMAGE = "registry.example.com/tessera"


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    k8s = verbs.add_parser("k8s", help="size and operate a cluster on Kubernetes", description=__doc__)
    sub = k8s.add_subparsers(metavar="VERB", required=True)
    _add_render(sub)
    _add_job(sub)
    _add_scale(sub)


def _add_render(sub: Any) -> None:
    parser = sub.add_parser(
        "render",
        help="print manifests whose sizes follow from packages",
        description="Prints manifests whose sizes follow from packages: the planner says how many servers hold them.",
    )
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="packages and blobs")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME[:VERSION,…]",
        help="model, at its latest version or at those that are served at once; may be repeated (default: all models)",
    )  # fmt: skip
    parser.add_argument(
        "--shard-memory", type=_quantity, required=True, metavar="AMOUNT",
        help="memory of a shard server, such as 64Gi; three quarters of it are for blobs",
    )  # fmt: skip
    parser.add_argument("--replicas", type=int, default=2, help="servers that hold each slot (default: %(default)s)")
    parser.add_argument(
        "--spare", type=float, default=0.25, metavar="PART",
        help="part of a server's room that stays free, for the next version and a server less (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--base", default="k8s/overlays/prod", metavar="DIR", help="kustomization that is sized (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", choices=("manifests", "kustomization", "values"), default="manifests",
        help="all objects (runs kubectl or kustomize), a kustomization on top of --base, or values of the Helm chart "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run_render)


def _add_job(sub: Any) -> None:
    parser = sub.add_parser(
        "job",
        help="print a Job that runs a command in the cluster",
        description="Prints a Job that runs a `tessera` command in the cluster, for `kubectl create -f -`. What the "
        "command needs to reach etcd and the repository is added to it.",
    )
    parser.add_argument("--image", default=_IMAGE, help="image with its tag or digest (default: %(default)s)")
    parser.add_argument("--namespace", default=overlay.NAMESPACE, help="of the cluster (default: %(default)s)")
    parser.add_argument("--tls", action="store_true", help="etcd wants the certificate in Secret tessera-etcd-client")
    parser.add_argument("words", nargs="+", metavar="WORD", help="the command after `--`, without `tessera`")
    parser.set_defaults(run=run_job)


def _add_scale(sub: Any) -> None:
    parser = sub.add_parser(
        "scale",
        help="set how many shard servers there are, if those that would go hold nothing",
        description="Sets how many shard servers there are, if those that would go hold nothing; to add some, `kubectl "
        "scale` does as well. Runs in a pod: see `tessera k8s job`.",
    )
    parser.add_argument("servers", type=int, metavar="SERVERS", help="how many shard servers there shall be")
    parser.add_argument(
        "--shard-set", default=overlay.SHARD_SET, metavar="NAME", help="name of the StatefulSet (default: %(default)s)"
    )
    add_cluster(parser)
    parser.set_defaults(run=lambda options: changes.run_verb(options, run_scale))


def _quantity(text: str) -> ByteSize:
    try:
        return parse_quantity(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def run_render(options: argparse.Namespace) -> None:
    """Print what was asked for on stdout, and how it came about on stderr."""
    repository = Repository(options.repository)
    models = {
        name: [repository.read_manifest(name, version) for version in versions]
        for name, versions in wanted_models(repository, options.model).items()
    }
    size = size_cluster(models, shard_memory_bytes=options.shard_memory, replicas=options.replicas, spare=options.spare)
    print(summary(size, options.replicas), file=sys.stderr)
    if options.output == "values":
        print(overlay.to_yaml(overlay.values(size)), end="")
    elif options.output == "kustomization":
        print(overlay.to_yaml(overlay.kustomization(size, options.base)), end="")
    else:
        print(overlay.manifests(size, Path(options.base)), end="")


def summary(size: ClusterSize, replicas: int) -> str:
    """Return why the cluster has this size, for people."""
    return (
        f"tables {format_bytes(size.table_bytes)} × {replicas} replicas on {size.servers} shard servers of "
        f"{format_quantity(size.shard_memory_bytes)}, each with a volume of {format_quantity(size.cache_bytes)}; the "
        f"fullest holds {format_bytes(size.fullest_bytes)} of {format_bytes(size.capacity_bytes)}\n"
        f"roots {format_bytes(size.root_bytes)} on routers of {format_quantity(size.router_memory_bytes)}; "
        f"repository {format_quantity(size.repository_bytes)}"
    )


def run_job(options: argparse.Namespace) -> None:
    """Print the Job as YAML."""
    words = complete(options.words, tls=options.tls)
    token = options.words[:2] == ["k8s", "scale"]
    content = jobs.job(words, image=options.image, namespace=options.namespace, tls=options.tls, token=token)
    print(overlay.to_yaml(content), end="")


def complete(words: Sequence[str], *, tls: bool) -> list[str]:
    """Return the words of a command with the flags that it takes for the repository and for etcd.

    Raises:
        InvalidArgumentError: there is no such command; quotes what it says.
    """
    reach = ("--cluster=$(CLUSTER)", "--etcd=$(ETCD)", *(jobs.TLS_WORDS if tls else ()))
    places = ("--repository=/models",)
    problem = ""
    for more in ((*places, *reach), reach, places, ()):
        complaint = _complaint([*words, *more])
        if complaint is None:
            return [*words, *more]
        problem = problem or complaint
    raise InvalidArgumentError(f"command: got {' '.join(words)!r}: {problem}")


def _complaint(words: Sequence[str]) -> str | None:
    """Return what is wrong with a command line; None if nothing is."""
    from admin.cli import build_parser  # which imports this module

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            build_parser().parse_args(list(words))
    except SystemExit as end:
        return None if end.code == 0 else said.getvalue().strip().rpartition("error: ")[2]
    return None


async def run_scale(options: argparse.Namespace, store: Store, keys: Keys, api: ClusterApi | None = None) -> None:
    """Give the StatefulSet of shard servers another size.

    Args:
        options: of the command line.
        store: that holds the cluster's records.
        keys: of the cluster.
        api: of Kubernetes; None: that of the pod which this is.

    Raises:
        InvalidArgumentError: no possible number.
        FailedPreconditionError: a server that would go may hold something; names it. Or this is not a pod.
        AbortedError: somebody else changed the StatefulSet meanwhile.
    """
    if not 1 <= options.servers <= MAX_SERVERS:
        raise InvalidArgumentError(f"servers: got {options.servers}, expected 1 to {MAX_SERVERS}")
    api = api or ClusterApi.in_cluster()
    found = await asyncio.to_thread(api.scale, options.shard_set)
    before = int(found["spec"].get("replicas", 0))  # a zero is left out
    if options.servers < before:
        snapshot = replace_all(keys, ClusterSnapshot(), await store.list_prefix(keys.prefix))
        problems = in_the_way(snapshot, options.servers, options.shard_set)
        if problems:
            raise FailedPreconditionError(
                f"servers: got {options.servers}, but {'; '.join(problems)}; `tessera server drain` first"
            )
    content = {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "spec": {"replicas": options.servers},
    }
    await asyncio.to_thread(api.patch_scale, options.shard_set, content)
    print(f"{options.shard_set}: {options.servers} servers (was {before})")
