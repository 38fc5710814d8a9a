"""Where `make k8s-tools` puts what it builds."""

from support.k8s_objects import ROOT

TOOLS = ROOT / "build" / "k8s-tools"
