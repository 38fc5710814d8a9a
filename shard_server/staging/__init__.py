"""Brings the blobs that a server is to hold into a directory of its own, and keeps them there."""
