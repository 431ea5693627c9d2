"""Round trip of dashboards through grafana-foundation-sdk: run by check-dashboards-schema."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# The SDK omits null values; for Grafana both mean "a new dashboard".
KNOWN = {".id"}


def lost(before, after, path=""):
    """Yields what `after` lacks or changes of `before`. Defaults added by the SDK are fine."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}.{key}")
            elif f"{path}.{key}" not in KNOWN:
                yield f"{path}.{key}: not in the schema: {json.dumps(value)[:120]}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after)):
            yield from lost(*pair, f"{path}[{index}]")
    elif before != after:
        yield f"{path}: {json.dumps(before)[:120]} became {json.dumps(after)[:120]}"


def main(files):
    register_default_plugins()
    problems = 0
    for file in files:
        with open(file, encoding="utf-8") as source:
            before = json.load(source)
        after = json.loads(json.dumps(Dashboard.from_json(before), cls=JSONEncoder))
        found = list(lost(before, after))
        problems += len(found)
        print(f"{file}: {len(before['panels'])} panels, {len(found)} problems")
        for problem in found:
            print(f"  {problem}")
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
