"""Every request that clerk-backend-api can make, from its source: one line per request, as "METHOD /path"."""

import ast
from pathlib import Path

import clerk_backend_api

found = set()
for source in sorted(Path(clerk_backend_api.__file__).parent.glob("*.py")):
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            method, path = given.get("method"), given.get("path")
            if isinstance(method, ast.Constant) and isinstance(path, ast.Constant):
                found.add(f"{method.value} {path.value}")
print("\n".join(sorted(found)))
