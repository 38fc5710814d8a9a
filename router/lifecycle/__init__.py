"""Lifecycle of plain models: which versions are loaded, in which order, within which memory, and what is published."""
