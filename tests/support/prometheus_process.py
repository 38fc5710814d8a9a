"""A real Prometheus on a free port of 127.0.0.1 (Debian's package); never outlives the thread that started it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from admin.processes import bound_to_parent
from support.etcd_process import free_port

START_TIMEOUT_S = 60.0
Series = Mapping[str, Any]


class PrometheusProcess:
    """Scrapes `targets` every three seconds, which a busy machine has time for, and evaluates `rules` every second.

    Args:
        directory: private to it.
        targets: job → addresses.
        rules: rule files.
        namespace: a label of all that is scraped, as on Kubernetes.
    """

    def __init__(
        self, directory: Path, targets: Mapping[str, Sequence[str]], rules: Sequence[Path], namespace: str = "tessera"
    ) -> None:
        self._directory, self._stack = directory, ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        configuration = {
            "global": {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses), "labels": {"namespace": namespace}}]}
                for job, addresses in targets.items()
            ],
        }
        self._file = directory / "prometheus.yaml"
        self._file.write_text(json.dumps(configuration), "utf-8")  # JSON is YAML

    def __enter__(self) -> Self:
        binary = shutil.which("prometheus")
        assert binary, "prometheus is not installed: apt-get install prometheus"
        self._address = f"127.0.0.1:{free_port()}"
        log = self._stack.enter_context((self._directory / "prometheus.log").open("wb"))
        command = [
            binary,
            f"--config.file={self._file}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        self._process = subprocess.Popen(bound_to_parent(command), stdout=log, stderr=log)
        try:
            self.wait_for(self._is_ready, START_TIMEOUT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(timeout=30)
        self._stack.close()

    def _is_ready(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._directory / "prometheus.log").read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """Return what is at a path of the API.

        Raises:
            AssertionError: it is refused; with the text.
        """
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[Series]:
        """Return the series of an expression now, each with `metric` and `value`."""
        data = self.get("query", query=expression)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[Series] = data["result"]
        return found

    def firing(self) -> dict[str, list[Series]]:
        """Return alert → its firing instances, each with `labels` and `annotations`."""
        found: dict[str, list[Series]] = {}
        for alert in self.get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120.0, tell: Callable[[], Any] = str) -> None:
        """Return once `condition` is true; `tell` says what there was instead."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {tell()}"
            time.sleep(0.2)
