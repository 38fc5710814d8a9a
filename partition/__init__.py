"""Offline: turns a SavedModel into a package of a small root graph and content-addressed blobs."""
