"""The list of contents of an image."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.sbom import (
    Component,
    built_in_packages,
    debian_packages,
    distribution_of,
    document,
    main,
    python_packages,
)
from tessera.errors import InvalidArgumentError

_STATUS = """\
Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 12.2.0-14+deb12u1
Description: library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: adduser
Status: install ok installed
Architecture: all
Version: 1:3.134~rc1
"""


def test_debian_packages_that_are_installed() -> None:
    assert [*debian_packages(_STATUS, "debian-12")] == [
        Component(
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
            "libstdc++6",
            "12.2.0-14+deb12u1",
        ),
        Component("pkg:deb/debian/adduser@1:3.134~rc1?arch=all&distro=debian-12", "adduser", "1:3.134~rc1"),
    ]
    assert [*debian_packages("", "debian-12")] == []


def test_a_package_without_a_version_is_named() -> None:
    status = _STATUS.replace("Version: 12.2.0-14+deb12u1\n", "")
    with pytest.raises(InvalidArgumentError, match=r"package libstdc\+\+6 has no Version"):
        [*debian_packages(status.replace(" Version: not this one\n", ""), "debian-12")]


def test_what_is_linked_in_is_told_apart() -> None:
    (one,) = built_in_packages("zlib1g-dev 1:1.2.13 amd64\n\n", "debian-12")
    assert one == Component(
        "pkg:deb/debian/zlib1g-dev@1:1.2.13?arch=amd64&distro=debian-12", "zlib1g-dev", "1:1.2.13", is_built_in=True
    )
    (entry,) = document([one], "1")["components"]
    assert entry["properties"] == [{"name": "tessera:linked", "value": "into the native core"}]
    with pytest.raises(InvalidArgumentError, match="got 'zlib1g-dev', expected name, version and architecture"):
        [*built_in_packages("zlib1g-dev", "debian-12")]


def test_python_packages_are_those_of_this_interpreter() -> None:
    found = {one.name: one for one in python_packages()}
    assert found["tensorflow"].purl == f"pkg:pypi/tensorflow@{found['tensorflow'].version}"
    assert "typing-extensions" in found  # names are written as package indexes do
    assert "tessera-serving" not in found  # the document is about it


def test_the_system_is_named() -> None:
    assert distribution_of({"ID": "debian", "VERSION_ID": "12"}) == "debian-12"
    assert distribution_of({"ID": "debian"}) == "debian-unknown"


_COMPONENTS = st.lists(
    st.builds(Component, st.sampled_from(["pkg:a", "pkg:b", "pkg:c"]), st.just("n"), st.just("1"), st.booleans())
)


@given(_COMPONENTS, st.randoms(use_true_random=False))
def test_the_same_contents_give_the_same_text(components: list[Component], random: Any) -> None:
    shuffled = [*components, *components[:1]]
    random.shuffle(shuffled)
    one = document(components, "1")
    assert one == document(shuffled, "1")
    references = [entry["bom-ref"] for entry in one["components"]]
    assert len(references) == len(set(references)) == len(set(components))
    assert one["serialNumber"] != document(components, "2")["serialNumber"]


def test_the_command_prints_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert (printed["bomFormat"], printed["specVersion"]) == ("CycloneDX", "1.5")
    assert {"numpy", "tensorflow"} <= {entry["name"] for entry in printed["components"]}
