"""Containers of a built image, run by crun as Kubernetes would: read-only, without rights, with what is mounted."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tessera.errors import UnavailableError

_END_TIMEOUT_S = 60.0
_WITHOUT_HYBRID_CGROUPS = 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
"""Shell that hides what crun refuses to run beside, in a mount namespace of its own; no group is made anyway."""
_NO_CAPABILITIES: Mapping[str, list[str]] = {
    kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
}


@dataclass(frozen=True)
class Image:
    """A mounted image.

    Args:
        rootfs: where it is mounted.
        config: the `config` of its OCI description: User, Env, Cmd and so on.
    """

    rootfs: Path
    config: Mapping[str, Any]

    def spec(self, arguments: Sequence[str], mounts: Mapping[Path, Path]) -> dict[str, Any]:
        """Return the runtime's description; `mounts` is outside → inside."""
        uid, gid = (int(number) for number in self.config["User"].split(":"))
        binds = [
            {"source": str(source), "destination": str(target), "type": "bind", "options": ["rbind", "rw", "nosuid"]}
            for source, target in mounts.items()
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "args": list(arguments) or self.config["Cmd"],
                "env": self.config["Env"],
                "cwd": self.config["WorkingDir"],
                "user": {"uid": uid, "gid": gid},
                "capabilities": _NO_CAPABILITIES,
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/tmp",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "nodev", "mode=1777"],
                },
                *binds,
            ],
            # Without a network of its own: the host's is shared, and servers bind its 127.0.0.1.
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }


@dataclass
class Containers:
    """The containers of one test; `stop` ends them all.

    Args:
        image: what they run.
        directory: for their descriptions, logs and the runtime's state.
        mounts: outside → inside, in each of them.
    """

    image: Image
    directory: Path
    mounts: Mapping[Path, Path]
    _started: list[str] = field(default_factory=list)

    def run(self, name: str, *arguments: str) -> str:
        """Run a container to its end and return what it printed.

        Raises:
            UnavailableError: it failed; with its log.
        """
        with self._log(name).open("w") as log:
            done = subprocess.run(
                self._crun("run", f"--bundle={self._bundle(name, arguments)}", name),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise UnavailableError(f"{name} ended with exit code {done.returncode}: {self.log(name)}{done.stdout}")
        return done.stdout

    def start(self, name: str, *arguments: str) -> int:
        """Start a container and return the process id of its first process, outside."""
        pid_file = self.directory / f"{name}.pid"
        bundle = self._bundle(name, arguments)
        with self._log(name).open("w") as log:
            command = self._crun("run", "--detach", f"--pid-file={pid_file}", f"--bundle={bundle}", name)
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        self._started.append(name)
        return int(pid_file.read_text())

    def terminate(self, name: str, pid: int) -> None:
        """Send SIGTERM, as Kubernetes does, and return when the container has ended.

        Raises:
            UnavailableError: it has not within a minute.
        """
        subprocess.run(self._crun("kill", name, "TERM"), check=True)
        deadline = time.monotonic() + _END_TIMEOUT_S
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                raise UnavailableError(f"{name}: runs {_END_TIMEOUT_S:g} s after SIGTERM: {self.log(name)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill what still runs."""
        for name in reversed(self._started):
            subprocess.run(self._crun("delete", "--force", name), check=True)
        self._started.clear()

    def log(self, name: str) -> str:
        """Return what the container has written to stderr."""
        return self._log(name).read_text("utf-8", "replace")

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _bundle(self, name: str, arguments: Sequence[str]) -> Path:
        bundle = self.directory / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.image.spec(arguments, self.mounts)))
        return bundle

    def _crun(self, *words: str) -> list[str]:
        crun = ["crun", "--cgroup-manager=disabled", f"--root={self.directory / 'crun'}", *words]
        return ["unshare", "--mount", "sh", "-c", _WITHOUT_HYBRID_CGROUPS, "sh", *crun]
