"""`tessera k8s`: what a cluster on Kubernetes needs beside its manifests: sizes, Jobs, the number of shard servers."""
