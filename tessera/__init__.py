"""Shared vocabulary of Tessera: errors, value types, the manifest, settings, the clock.

This package imports the standard library only, so that every other package may import it; one module,
`metric_families`, needs Prometheus' library too, and is imported when metrics are first asked for.
"""
