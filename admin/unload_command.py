"""`tessera model unload`: takes a model out of service.

New requests find no such model from the moment of the commit; those that run end as they would have. Then the servers
drop what only this model needed. The packages stay in the repository: `tessera model load` serves it again.
"""

from __future__ import annotations

import argparse
from typing import Any

from admin import changes
from admin.arguments import add_cluster, add_output
from admin.loading import owner
from admin.output import show
from admin.progress import say
from admin.traffic_command import versions_json, versions_text
from placement.found import Reader
from placement.keys import Keys
from placement.store import Store
from placement.traffic import served_versions
from placement.unload import check_unload, unload_model


def add_to(model_verbs: Any) -> None:
    """Add the verb below `tessera model`."""
    parser = model_verbs.add_parser("unload", help="take a model out of service", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    changes.add_drive_arguments(parser)
    add_cluster(parser)
    add_output(parser)
    parser.set_defaults(run=lambda options: changes.run_verb(options, _unload))


async def _unload(options: argparse.Namespace, store: Store, keys: Keys) -> None:
    found = await Reader(store, keys, options.model).read()
    check_unload(found)
    assert found.current_placement is not None
    placement = found.current_placement
    versions = served_versions(found.current, placement)
    routers = sum(options.model in record.pinned for record in found.routers.values())
    what = f"versions {versions_text(versions)} on {len(placement.servers)} servers and {routers} routers"
    if options.dry_run:
        content = {"model": options.model, "versions": versions_json(versions), "servers": list(placement.servers)}
        show(options, content | {"routers": routers}, f"model {options.model}: would unload {what}")
        return
    say(f"model {options.model}: unloads {what}")
    changes.confirm(options, f"Unload model {options.model}? Its requests will be refused.")
    done = await unload_model(
        store, keys, options.model, owner=owner(), timeout_s=options.timeout_s, wait=options.wait, progress=say
    )
    changes.show_operation(options, options.model, done)
