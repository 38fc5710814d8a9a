"""`python -m admin.sbom`: prints what is installed around this program, as a CycloneDX document (JSON).

For images: Python packages, Debian packages, and what was linked into the native core. The same contents give the same
text, so that two builds can be compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tessera.errors import InvalidArgumentError

_NAMESPACE = uuid.UUID("7d0f3a52-8d5e-5c0e-9c35-3f4b1d9b5a61")  # of serial numbers; any fixed one does
_DISTRIBUTION = "tessera-serving"


@dataclass(frozen=True, order=True)
class Component:
    """One package; `purl` names it everywhere."""

    purl: str
    name: str
    version: str
    is_built_in: bool = False


def python_packages() -> Iterator[Component]:
    """Yield the packages that this interpreter finds, without Tessera itself."""
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        if name != _DISTRIBUTION:
            yield Component(f"pkg:pypi/{quote(name)}@{quote(found.version)}", name, found.version)


def debian_packages(status: str, distribution: str) -> Iterator[Component]:
    """Yield the installed packages.

    Args:
        status: content of `/var/lib/dpkg/status`.
        distribution: such as `debian-12`.

    Raises:
        InvalidArgumentError: an installed package has no name, version or architecture.
    """
    for paragraph in re.split(r"\n\n+", status.strip()):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").split()[-1:] == ["installed"]:
            lacking = {"Package", "Version", "Architecture"} - fields.keys()
            if lacking:
                raise InvalidArgumentError(
                    f"dpkg status: package {fields.get('Package', '?')} has no {', '.join(sorted(lacking))}"
                )
            yield _debian(fields["Package"], fields["Version"], fields["Architecture"], distribution)


def built_in_packages(lines: str, distribution: str) -> Iterator[Component]:
    """Yield what was linked into the native core.

    Args:
        lines: one package a line: name, version and architecture, separated by blanks.
        distribution: such as `debian-12`.

    Raises:
        InvalidArgumentError: a line has another form; quotes it.
    """
    for line in filter(None, lines.splitlines()):
        words = line.split()
        if len(words) != 3:
            raise InvalidArgumentError(f"--built-in: got {line!r}, expected name, version and architecture")
        name, version_, architecture = words
        yield _debian(name, version_, architecture, distribution, is_built_in=True)


def _debian(name: str, version_: str, architecture: str, distribution: str, *, is_built_in: bool = False) -> Component:
    qualifiers = f"arch={architecture}&distro={distribution}"
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version_, safe=':~')}?{qualifiers}"
    return Component(purl, name, version_, is_built_in)


def distribution_of(os_release: Mapping[str, str]) -> str:
    """Return name and version of the system, such as `debian-12`, from the fields of `/etc/os-release`."""
    return f"{os_release['ID']}-{os_release.get('VERSION_ID', 'unknown')}"


def document(components: Iterable[Component], own_version: str) -> dict[str, Any]:
    """Return the CycloneDX document; it depends on nothing but the arguments."""
    found = sorted(set(components))
    content = "\n".join([own_version, *(f"{one.purl} {one.is_built_in}" for one in found)])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": _DISTRIBUTION,
                "name": _DISTRIBUTION,
                "version": own_version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [_entry(one) for one in found],
    }


def _entry(one: Component) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "library", "name": one.name, "version": one.version, "purl": one.purl}
    if one.is_built_in:
        return entry | {
            "bom-ref": f"{one.purl}#built-in",
            "properties": [{"name": "tessera:linked", "value": "into the native core"}],
        }
    return entry | {"bom-ref": one.purl}


def main(argv: list[str] | None = None) -> int:
    """Print the document and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m admin.sbom", description=__doc__)
    parser.add_argument(
        "--built-in",
        type=Path,
        metavar="FILE",
        help="what was linked into the native core: one package a line, its name, version and architecture",
    )
    options = parser.parse_args(argv)
    system = distribution_of(platform.freedesktop_os_release())
    components = [*python_packages()]
    status = Path("/var/lib/dpkg/status")
    if status.exists():
        components += debian_packages(status.read_text("utf-8"), system)
    if options.built_in is not None:
        components += built_in_packages(options.built_in.read_text("utf-8"), system)
    json.dump(document(components, version(_DISTRIBUTION)), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
