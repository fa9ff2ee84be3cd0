"""Which cluster this process may hand a job to, and the token that it shows there.

Whoever reaches Ray's Jobs API runs what he likes on the cluster, unless it asks for a token (ShadowRay, CVE-2023-48022). So
no address beyond this machine is talked to without one.
"""
from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from snnseg.errors import ClusterError, UsageError

EXAMPLE = "http://127.0.0.1:8265"
OFF_REMEDY = "Start it with RAY_AUTH_MODE=token and bring its token here: ~/.ray/auth_token, of mode 0600, or RAY_AUTH_TOKEN_PATH (docs/cluster.md)"


def checked(url: str) -> str:
    """`url` as the address of a Ray dashboard, without a slash at its end. Raises UsageError, which never shows a password."""
    expected = f"expected the dashboard of a Ray cluster, for example {EXAMPLE}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as e:
        raise UsageError(f"--address: {e}, {expected}") from e
    if "@" in parts.netloc:
        raise UsageError("--address: a name or password in an address ends in logs. Leave it out; a cluster is entered with a token (docs/cluster.md).")
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"--address {url[:200]}: {expected}. The Jobs API is at the dashboard's port, 8265, not at Ray's own, 6379.")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(url: str) -> bool:
    """Whether what is sent to `url` stays on this machine."""
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def token_place() -> str | None:
    """Where Ray would take the token from, in its own order; None where there is none. Raises ClusterError for a file that is not there."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        if not Path(named).is_file() or not Path(named).read_text(encoding="utf-8", errors="replace").strip():
            raise ClusterError(named, "RAY_AUTH_TOKEN_PATH names it, but it holds no token", "Put the cluster's token into it, or unset RAY_AUTH_TOKEN_PATH")
        return named
    usual = Path.home() / ".ray" / "auth_token"
    return "~/.ray/auth_token" if usual.is_file() and usual.read_text(encoding="utf-8", errors="replace").strip() else None


def permit(url: str) -> str | None:
    """Set this process up to talk to `url` and no other, before ray is imported; return where its token is from.

    Raises ClusterError where `url` is beyond this machine and there is no token.
    """
    off = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"
    token = None if off else token_place()
    if not is_loopback(url):
        if token is None:
            without = "RAY_AUTH_MODE turns tokens off" if off else "no token was found"
            raise ClusterError(url, f"not on this machine, and {without}; a cluster without one runs what anybody sends it (ShadowRay, CVE-2023-48022), "
                               "so nothing was sent", OFF_REMEDY)
        if url.startswith("http:"):
            print(f"warning: {url}: the token and the code go there unencrypted. Use https, or a tunnel: ssh -L 8265:127.0.0.1:8265 HEAD", file=sys.stderr)
    else:
        for name in ("no_proxy", "NO_PROXY"):       # what is meant for this machine goes to no proxy
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), urlsplit(url).hostname]))
    if token:
        os.environ["RAY_AUTH_MODE"] = "token"
    # Ray puts RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, above the address that it is given
    os.environ["RAY_API_SERVER_ADDRESS"] = url
    return token
