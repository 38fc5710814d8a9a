"""Inception-v3 from a JPEG to class names: the programs of docs/tutorials/inception-kubernetes.md."""
