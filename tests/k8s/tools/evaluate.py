# mypy: disable-error-code="import-not-found"
"""Evaluates a ValidatingAdmissionPolicy with cel-python: reads JSON on stdin, prints the messages of what it refuses.

Input: {"policy": the policy's spec, "object", "oldObject", "params", "request"}. Runs in the virtual environment of
`make k8s-tools`.
"""

import json
import sys
from typing import Any

import celpy


def main() -> None:
    content = json.load(sys.stdin)
    policy = content.pop("policy")
    environment = celpy.Environment()
    known = {name: celpy.json_to_cel(value) for name, value in content.items()}

    def evaluate(expression: str) -> Any:
        return environment.program(environment.compile(expression)).evaluate(known)

    known["variables"] = celpy.celtypes.MapType({})
    for variable in policy.get("variables", []):
        known["variables"][celpy.celtypes.StringType(variable["name"])] = evaluate(variable["expression"])
    messages = []
    for validation in policy["validations"]:
        if not evaluate(validation["expression"]):
            expression = validation.get("messageExpression")
            messages.append(str(evaluate(expression)) if expression else validation["message"])
    json.dump(messages, sys.stdout)


if __name__ == "__main__":
    main()
