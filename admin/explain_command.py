"""`tessera explain`: sends one request, and shows which servers were asked for which rows, and how long each took.

The router answers it as any other request, over the connections that serve clients, and keeps what this one did.
Batched parts of the model run for this request alone.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Any

from admin.arguments import add_output, json_object
from admin.output import show
from admin.predict_command import add_request_arguments, make_request, router_of, signature_of, spec_of
from admin.random_inputs import random_inputs
from admin.serving_client import call, open_channel
from admin.table import render
from protos import router_pb2
from router.explain_service import EXPLAIN, MAX_TIMEOUT_S
from tessera.errors import Code, InvalidArgumentError, error_class
from tessera.settings import format_bytes


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("explain", help="show what one request asks of which servers", description=__doc__)
    add_request_arguments(parser)
    parser.add_argument("--random", action="store_true", help="make inputs up, from the signature")
    parser.add_argument("--batch", type=int, default=1, help="unknown sizes of --random (default: %(default)s)")
    parser.add_argument(
        "--max-int", type=int, default=100, help="integers of --random are below (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --random (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Send the request and show what it did.

    Raises:
        InvalidArgumentError: a flag or an input is wrong; names it.
        TesseraError: what the request ended with, after it was shown; or the router does not answer.
    """
    if not 0 < options.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidArgumentError(
            f"--timeout-s: got {options.timeout_s:g}, expected above 0, at most {MAX_TIMEOUT_S:g}"
        )
    for flag, value in (("--batch", options.batch), ("--max-int", options.max_int)):
        if value < 1:
            raise InvalidArgumentError(f"{flag}: got {value}, expected at least 1")
    if options.random and options.inputs is not None:
        raise InvalidArgumentError("INPUTS and --random: got both, expected one of them")
    inputs: dict[str, Any] | None = None
    if not options.random:
        text, place = (options.inputs, "INPUTS") if options.inputs is not None else (sys.stdin.read(), "standard input")
        inputs = json_object(text, place)
    router = router_of(options)
    with open_channel(router) as channel:
        spec = spec_of(options)
        signature = signature_of(channel, router, spec, options.timeout_s)
        if inputs is None:
            rng = random.Random(options.seed)
            inputs = random_inputs(signature, batch=options.batch, max_int=options.max_int, rng=rng)
        request = make_request(spec, signature, inputs, options)
        message = router_pb2.ExplainRequest(predict_request=request.SerializeToString(), timeout_s=options.timeout_s)
        answer = call(channel, EXPLAIN, message.SerializeToString(), options.timeout_s + 5.0)
    content = as_json(router_pb2.ExplainResponse.FromString(answer), router)
    show(options, content, as_text(content))
    if content["code"] != Code.OK.name:
        raise error_class(Code[content["code"]])(content["message"])


def as_json(response: router_pb2.ExplainResponse, router: str) -> dict[str, Any]:
    """Return what the router said, with sums over servers."""
    lookups: list[dict[str, Any]] = [
        {
            "started_ms": lookup.started_micros / 1e3,
            "took_ms": lookup.took_micros / 1e3,
            "rows": lookup.rows,
            "repeats": lookup.repeats,
            "code": Code(lookup.code).name,
            "message": lookup.message,
            "sub_requests": [_sub_request(sub) for sub in lookup.sub_requests],
        }
        for lookup in response.lookups
    ]
    subs = [sub for lookup in lookups for sub in lookup["sub_requests"]]
    return {
        "model": response.model,
        "version": response.version or None,
        "router": router,
        "epoch": response.epoch or None,
        "package_digest": response.package_digest,
        "code": Code(response.code).name,
        "message": response.message,
        "took_ms": response.took_micros / 1e3,
        "request_bytes": response.request_bytes,
        "response_bytes": response.response_bytes,
        "lookups_ms": sum(lookup["took_ms"] for lookup in lookups),
        "servers": {
            server: {
                "sub_requests": sum(sub["server"] == server for sub in subs),
                "rows": sum(sub["rows"] for sub in subs if sub["server"] == server),
                "bytes": sum(sub["sent_bytes"] + sub["rows_bytes"] for sub in subs if sub["server"] == server),
                "longest_ms": max(sub["took_ms"] for sub in subs if sub["server"] == server),
            }
            for server in sorted({sub["server"] for sub in subs})
        },
        "lookups": lookups,
        "dropped": response.dropped,
    }


def _sub_request(sub: router_pb2.ExplainedSubRequest) -> dict[str, Any]:
    return {
        "server": sub.server_id,
        "address": sub.address,
        "cause": sub.cause,
        "rows": sum(sub.table_rows.values()),
        "tables": dict(sorted(sub.table_rows.items())),
        "sent_bytes": sub.ids_bytes,
        "rows_bytes": sub.rows_bytes,
        "started_ms": sub.started_micros / 1e3,
        "took_ms": sub.took_micros / 1e3,
        "code": Code(sub.code).name,
        "message": sub.message,
    }


def as_text(content: dict[str, Any]) -> str:
    """Return `as_json` for people."""
    outcome = content["code"] + (f": {content['message']}" if content["message"] else "")
    sizes = f"{format_bytes(content['request_bytes'])} in, {format_bytes(content['response_bytes'])} out"
    package = content["package_digest"][:12] or "-"
    lines = [
        f"Request   model {content['model']}, version {content['version'] or '-'}, {outcome}",
        f"Router    {content['router']}, epoch {content['epoch'] or '-'}, package {package}",
        f"Took      {content['took_ms']:.2f} ms, of which lookups {content['lookups_ms']:.2f} ms; {sizes}",
    ]
    rows = [
        (
            number,
            sub["server"],
            sub["address"],
            sub["cause"],
            sub["rows"],
            ", ".join(f"{table} {count}" for table, count in sub["tables"].items()),
            format_bytes(sub["sent_bytes"]),
            format_bytes(sub["rows_bytes"]),
            f"{sub['started_ms']:.2f} ms",
            f"{sub['took_ms']:.2f} ms",
            sub["code"],
        )
        for number, lookup in enumerate(content["lookups"], start=1)
        for sub in lookup["sub_requests"]
    ]
    if not rows:
        return "\n".join([*lines, "No server was asked: the model has no tables, or the request did not come so far."])
    header = ("LOOKUP", "SERVER", "ADDRESS", "CAUSE", "ROWS", "OF", "SENT", "RECEIVED", "AT", "TOOK", "OUTCOME")
    lines += ["", render(header, rows, right=("LOOKUP", "ROWS", "SENT", "RECEIVED", "AT", "TOOK"))]
    if content["dropped"]:
        lines.append(f"and {content['dropped']} more")
    return "\n".join(lines)
