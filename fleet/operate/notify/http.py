"""The door to webhooks and Slack: one POST of a JSON document."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from fleet.operate.notify.errors import NotSent


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry what is sent, and its headers, to another host."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect())


def post(url: str, document: Mapping[str, Any], *, headers: Mapping[str, str], timeout_seconds: float) -> None:
    """Send it. Raises NotSent for any answer but 2xx; neither the address nor the answer is in the message."""
    data = json.dumps(document, ensure_ascii=False).encode()
    own = {"Content-Type": "application/json", "User-Agent": "fleet-notify"}
    try:
        request = urllib.request.Request(url, data=data, headers={**own, **headers}, method="POST")
        with _OPENER.open(request, timeout=timeout_seconds):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise NotSent(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        reason = error.reason
        text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        raise NotSent(f"the server cannot be reached: {text}") from None
    except (OSError, ValueError) as error:
        kind = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        raise NotSent(f"the server gave no answer: {kind}") from None
    except Exception as error:  # http.client raises what is no OSError
        raise NotSent(f"the server gave no answer that makes sense: {type(error).__name__}") from None
