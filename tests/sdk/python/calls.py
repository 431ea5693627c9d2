"""Calls of clerk-backend-api against the server of the environment. One JSON line per call, the same as calls.mjs prints.

    python calls.py calls      every kind of call once, one after the other
    python calls.py burst N    N concurrent lookups of one user
    python calls.py all N      both

CLERK_API_URL is the server without /v1; CLERK_SECRET_KEY a key that it accepts. What is printed depends on nothing but the
server's data: no times, no order in which parallel calls end.
"""

import asyncio
import hashlib
import json
import os
import sys

from clerk_backend_api import Clerk, models

PAGE = 30
WRONG_KEY = "sk_test_0000000000000000WRONG"
UNKNOWN_USER = "user_000000000000000000000000000"
# Arrives unchanged only if no proxy decodes and re-encodes the query.
AWKWARD = "a b+c&d=ü%2F/?#é"


def client(key=os.environ["CLERK_SECRET_KEY"]):
    # Unlike Node's, this SDK needs the /v1. Retries are off: by default it retries 5xx and broken connections for up
    # to an hour. The timeout is longer than its 5 s, so that the tests do not depend on the load of the machine.
    return Clerk(
        bearer_auth=key, server_url=os.environ["CLERK_API_URL"] + "/v1", retry_config=None, timeout_ms=60_000
    )


CLERK = client()


def show(line):
    print(json.dumps(line, ensure_ascii=False, separators=(",", ":")), flush=True)


def digest(ids):
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def summary(user):
    return {
        "id": user.id,
        "email": user.email_addresses[0].email_address,
        "firstName": user.first_name,
        "lastName": user.last_name,
        "username": user.username,
        "externalId": user.external_id,
        "publicMetadata": user.public_metadata,
        "privateMetadata": user.private_metadata,
    }


def failure(error):
    try:
        body = json.loads(error.body)
    except ValueError:
        body = {}
    errors = body.get("errors")
    retry_after = error.headers.get("Retry-After")
    return {
        "status": error.status_code,
        "code": errors[0]["code"] if errors else None,
        "retryAfter": int(retry_after) if retry_after else None,
        "hasTraceId": bool(body.get("clerk_trace_id") or error.headers.get("CF-Ray")),
    }


def call(name, work):
    try:
        result = work()
    except models.ClerkBaseError as error:
        show({"call": name, "ok": False, "error": failure(error)})
        return None
    show({"call": name, "ok": True, "result": result})
    return result


def ids(**parameters):
    return [user.id for user in CLERK.users.list(request={"order_by": "+created_at", **parameters})]


def pages():
    everyone, count, page = [], 0, None
    while page is None or len(page) == PAGE:
        page = ids(limit=PAGE, offset=len(everyone))
        everyone += page
        count += 1
    return {"pages": count, "users": len(everyone), "distinct": len(set(everyone)), "digest": digest(everyone)}


def jwks():
    # The response may contain other kinds of keys; these are the common fields.
    keys = CLERK.jwks.get_jwks().keys
    return [{name: getattr(key, name) for name in ("kid", "kty", "alg", "use")} for key in keys]


def calls():
    first = call("users.list", lambda: ids(limit=5))
    if first is None:
        return
    user, other = first[:2]
    users = CLERK.users
    call("users.count", lambda: users.count().total_count)
    call("users.get", lambda: summary(users.get(user_id=user)))
    call("users.get_many", lambda: sorted(ids(user_id=[other, user, UNKNOWN_USER], limit=100)))
    call("users.pages", pages)
    call("users.update", lambda: summary(users.update(user_id=user, first_name="Zoë", external_id=AWKWARD)))
    call(
        "users.update_metadata",
        lambda: summary(users.update_metadata(user_id=user, public_metadata={"plan": "pro", "seats": {"used": 3}})),
    )
    call("users.get_updated", lambda: summary(users.get(user_id=user)))
    call("users.list_by_external_id", lambda: ids(external_id=[AWKWARD]))
    call("jwks.get", jwks)
    call("users.get_unknown", lambda: users.get(user_id=UNKNOWN_USER))
    call("users.list_limit_out_of_range", lambda: ids(limit=501))
    call(
        "users.update_metadata_too_large",
        lambda: users.update_metadata(user_id=user, public_metadata={"text": "x" * 9000}),
    )
    call("users.get_wrong_key", lambda: client(WRONG_KEY).users.get(user_id=user))
    # The tests make the server reject every DELETE with 429 and fail every POST.
    call("users.delete", lambda: users.delete(user_id=user))
    call("users.create", lambda: users.create(email_address=["new@example.com"]))


async def outcome(user):
    try:
        await CLERK.users.get_async(user_id=user)
    except models.ClerkBaseError as error:
        return failure(error)
    return None


async def burst(count):
    user = ids(limit=1)[0]
    errors = [error for error in await asyncio.gather(*(outcome(user) for _ in range(count))) if error]
    throttled = [error for error in errors if error["status"] == 429]
    show(
        {
            "call": "burst",
            "calls": count,
            "ok": count - len(errors),
            "throttled": len(throttled),
            "throttledWithRetryAfter": sum((error["retryAfter"] or 0) > 0 for error in throttled),
            "otherErrors": [error for error in errors if error["status"] != 429],
        }
    )


match sys.argv[1:]:
    case ["calls"]:
        calls()
    case ["burst", count] if count.isdecimal() and int(count) > 0:
        asyncio.run(burst(int(count)))
    case ["all", count] if count.isdecimal() and int(count) > 0:
        calls()
        asyncio.run(burst(int(count)))
    case _:
        sys.exit("usage: calls.py calls | burst N | all N")
