"""A write to a server that never answers, with clerk-backend-api: prints the attempts that arrive, as JSON.

By default the SDK repeats it, so this waits for the second attempt. Without retries there is one.
"""

import http.server
import json
import os
import threading

import httpx
from clerk_backend_api import Clerk

TIMEOUT_MS = 200
arrived = threading.Semaphore(0)


class Silent(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        arrived.release()
        threading.Event().wait()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
threading.Thread(target=server.serve_forever, daemon=True).start()


def invite(**options):
    client = Clerk(bearer_auth="sk_test_x", server_url=f"http://127.0.0.1:{server.server_port}/v1", timeout_ms=TIMEOUT_MS, **options)
    client.invitations.create(request={"email_address": "jane@example.com"})


threading.Thread(target=invite, daemon=True).start()
is_repeated = all(arrived.acquire(timeout=60) for _ in range(2))
print(json.dumps({"with": "defaults", "repeated": is_repeated}), flush=True)
try:
    invite(retry_config=None)
    error = None
except httpx.HTTPError as raised:
    error = type(raised).__name__
print(json.dumps({"with": "retry_config=None", "error": error}), flush=True)
# Attempts of the first client still wait.
os._exit(0)
