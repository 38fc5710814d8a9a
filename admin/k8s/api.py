"""The Kubernetes API, as far as `tessera k8s scale` needs it: the size of one StatefulSet, from inside a pod."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera.errors import (
    AbortedError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    TesseraError,
    UnavailableError,
)

ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 10.0
_MAX_BYTES = 1 << 20
_ERRORS: Mapping[int, type[TesseraError]] = {
    403: PermissionDeniedError,
    404: NotFoundError,
    409: AbortedError,
    422: FailedPreconditionError,
}


@dataclass(frozen=True)
class ClusterApi:
    """Talks to the API server of the cluster that this process runs in. Blocks; 10 s at most for a call."""

    url: str
    token: str
    tls: ssl.SSLContext | None
    namespace: str

    @classmethod
    def in_cluster(cls, account_dir: Path = ACCOUNT_DIR, environ: Mapping[str, str] | None = None) -> ClusterApi:
        """Return the API as the pod's service account.

        Raises:
            FailedPreconditionError: this is no pod, or one without a token.
        """
        environ = os.environ if environ is None else environ
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
        try:
            if not host or not port:
                raise FileNotFoundError
            token = (account_dir / "token").read_text("utf-8").strip()
            namespace = (account_dir / "namespace").read_text("utf-8").strip()
            tls = ssl.create_default_context(cafile=str(account_dir / "ca.crt"))
        except FileNotFoundError:
            raise FailedPreconditionError(
                "this is not a pod with the token of a service account; "
                "run it in the cluster: tessera k8s job -- k8s scale N | kubectl create -f -"
            ) from None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", token, tls, namespace)

    def scale(self, stateful_set: str) -> dict[str, Any]:
        """Return the Scale object of a StatefulSet of the namespace.

        Raises:
            NotFoundError, PermissionDeniedError, UnavailableError: as the API server says.
        """
        return self._call("GET", self._path(stateful_set))

    def patch_scale(self, stateful_set: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `content` into the Scale object of a StatefulSet and return it.

        Raises:
            AbortedError: `content` names a resourceVersion, and it has another by now.
            FailedPreconditionError: it is no possible size; says why.
            NotFoundError, PermissionDeniedError, UnavailableError: as the API server says.
        """
        return self._call("PATCH", self._path(stateful_set), json.dumps(content).encode())

    def _path(self, stateful_set: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{stateful_set}/scale"

    def _call(self, verb: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self.tls) as answer:
                content = json.loads(answer.read(_MAX_BYTES))
        except urllib.error.HTTPError as error:
            kind = _ERRORS.get(error.code, UnavailableError)
            raise kind(f"{verb} {path}: {_message(error)}") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{verb} {self.url}{path}: {error}") from error
        assert isinstance(content, dict)
        return content


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the API server says, which it does in a Status object."""
    try:
        text = json.loads(error.read(_MAX_BYTES))["message"]
    except (OSError, ValueError, KeyError, TypeError):
        text = error.reason
    return f"{error.code}: {text}"
