"""The one door to the APIs of GitHub and GitLab: a commit's status, and one comment on its pull or merge request."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.errors import FleetError
from fleet.operate.sync.reports import Report, marker

TIMEOUT_SECONDS = 20.0
MOST_BYTES = 4 << 20
GITHUB = "https://api.github.com"
GITLAB = "https://gitlab.com/api/v4"


class ForgeError(FleetError):
    """The API refused, or gave no answer in time."""


class Forge(Protocol):
    """Who hosts the repository."""

    def set_status(self, report: Report) -> None:
        """Write the status of a commit. Raises ForgeError."""

    def comment(self, report: Report) -> int:
        """Write the comment on every open request of a commit, in the place of an earlier one; how many there are."""


@dataclass(frozen=True, slots=True)
class Api:
    """One API: its base URL, and the headers that let us in."""

    base: str
    headers: Mapping[str, str]

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that it answers. Raises ForgeError; no token is in the message."""
        url = f"{self.base.rstrip('/')}/{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"User-Agent": "fleet-sync", "Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
                text = answer.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(300).decode("utf-8", "replace")
            raise ForgeError(f"{method} {url}: {error.code} {error.reason}: {said}", hint=_hint(error.code)) from None
        except (OSError, ValueError) as error:
            raise ForgeError(f"{method} {url}: {error}") from error
        if len(text) > MOST_BYTES:
            raise ForgeError(f"{method} {url}: the answer is longer than {MOST_BYTES:,} bytes")
        try:
            return json.loads(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise ForgeError(f"{method} {url}: the answer is no JSON") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to another host."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect())


def _hint(code: int) -> str:
    if code in {401, 403}:
        return "the token is wrong, ended, or may not write statuses and comments"
    return "is the project's name right, and does the token see it?" if code == 404 else ""


class GitHub:
    """GitHub, and what speaks its API."""

    def __init__(self, project: str, token: str, *, name: str, api: str = "") -> None:
        version = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        self._api = Api(api or GITHUB, {**version, "Authorization": f"Bearer {token}"})
        self._project = urllib.parse.quote(project)
        self._name = name

    def set_status(self, report: Report) -> None:
        """Under the context ``fleet/<source>``."""
        body = {"state": report.state, "description": report.line, "context": f"fleet/{self._name}"}
        self._api.call("POST", f"repos/{self._project}/statuses/{report.commit}", body)

    def comment(self, report: Report) -> int:
        """On the pull requests that brought the commit."""
        pulls = self._api.call("GET", f"repos/{self._project}/commits/{report.commit}/pulls")
        for pull in pulls:
            path = f"repos/{self._project}/issues/{int(pull['number'])}/comments"
            ours = f"repos/{self._project}/issues/comments"
            _write_comment(self._api, report, name=self._name, path=path, edit=("PATCH", ours))
        return len(pulls)


class GitLab:
    """GitLab."""

    _STATES: Mapping[str, str] = {"pending": "pending", "success": "success", "failure": "failed"}

    def __init__(self, project: str, token: str, *, name: str, api: str = "") -> None:
        self._api = Api(api or GITLAB, {"PRIVATE-TOKEN": token})
        self._project = f"projects/{urllib.parse.quote(project, safe='')}"
        self._name = name

    def set_status(self, report: Report) -> None:
        """Under the name ``fleet/<source>``. GitLab refuses a state that a commit has already: that is no failure."""
        body = {"state": self._STATES[report.state], "description": report.line, "name": f"fleet/{self._name}"}
        try:
            self._api.call("POST", f"{self._project}/statuses/{report.commit}", body)
        except ForgeError as error:
            if "Cannot transition status" not in error.message:
                raise

    def comment(self, report: Report) -> int:
        """On the merge requests that brought the commit."""
        merges = self._api.call("GET", f"{self._project}/repository/commits/{report.commit}/merge_requests")
        for merge in merges:
            path = f"{self._project}/merge_requests/{int(merge['iid'])}/notes"
            _write_comment(self._api, report, name=self._name, path=path, edit=("PUT", path))
        return len(merges)


def _write_comment(api: Api, report: Report, *, name: str, path: str, edit: tuple[str, str]) -> None:
    """One comment of this source below ``path``: a new one, or in the place of an earlier one.

    edit: the method that changes a comment, and the path before its id.
    """
    ours = _ours(api.call("GET", f"{path}?per_page=100"), name)
    if ours is None:
        api.call("POST", path, {"body": report.comment})
    else:
        method, place = edit
        api.call(method, f"{place}/{int(ours['id'])}", {"body": report.comment})


def _ours(comments: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((one for one in comments if str(one.get("body", "")).startswith(marker(name))), None)


def forge(provider: str, project: str, token: str, *, name: str, api: str = "") -> Forge:
    """The forge of a provider."""
    kind = GitHub if provider == "github" else GitLab
    return kind(project, token, name=name, api=api)
