"""The demo: which module of the standard library is a line of code from? See README.md beside this file."""
