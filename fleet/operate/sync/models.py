"""The models of a FleetSource, exactly as people write it: which repository a fleet follows, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.field_types import Bytes, FilePath, Limit, Name
from fleet.core.manifest.models import Secret, SecretRef
from fleet.operate.sync.verdict import HealMode, Mode

Words = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Share = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,5}%?$"), Field(examples=["3", "30%"])]
VerifyMode = Literal["HEAD", "Tag", "TagAndHEAD"]
Provider = Literal["github", "gitlab"]


class Ref(Model):
    """What to follow: exactly one of the fields."""

    branch: Words | None = Field(default=None, description="the newest commit of a branch")
    tag: Words | None = Field(default=None, description="one tag")
    semver: Words | None = Field(default=None, description="the highest version tag in a range, such as `>=1.4 <2`")
    commit: Words | None = Field(default=None, description="one commit, in full")


class FileRef(Model):
    """A file of this machine; relative to the FleetSource's own folder."""

    file: FilePath = Field(description="its path")


class Auth(Model):
    """How to get in."""

    ssh_key: FileRef | None = Field(default=None, description="private key for ssh, mode 0600")
    known_hosts: FileRef | None = Field(default=None, description="keys of the hosts that ssh may talk to")
    username: Words | None = Field(default=None, description="for https; silent: git")
    token: SecretRef | None = Field(default=None, description="password or token for https")
    ca_file: FileRef | None = Field(default=None, description="certificates to trust for https, PEM")


class SshVerify(Model):
    """Keys that may sign, for signatures made with ssh."""

    allowed_signers: FilePath = Field(description="file in the format of `man ssh-keygen`, ALLOWED SIGNERS")


class GpgVerify(Model):
    """Keys that may sign, for signatures made with OpenPGP."""

    keys: FilePath = Field(description="file with the public keys, armoured or binary")


class Verify(Model):
    """Whose signature a revision must carry. Without any of the keys nothing is trusted."""

    mode: VerifyMode = Field(default="HEAD", description="what must be signed: the commit, the tag, or both")
    ssh: SshVerify | None = Field(default=None, description="keys for signatures made with ssh")
    gpg: GpgVerify | None = Field(default=None, description="keys for signatures made with OpenPGP")


class Git(Model):
    """The repository."""

    url: Words = Field(description="`ssh://…`, `git@host:path`, `https://…`, `file:///…` or an absolute path")
    ref: Ref = Field(description="what to follow")
    paths: Annotated[list[FilePath], Field(min_length=1, max_length=50)] = Field(
        description="manifest files in the repository, merged left to right"
    )
    auth: Auth = Field(default=Auth(), description="how to get in")
    verify: Verify | None = Field(default=None, description="whose signature a revision must carry")
    allow_force_push: bool = Field(default=False, description="accept a history that was rewritten")
    max_size: Bytes = Field(default=256 << 20, gt=0, description="of the repository, and of a checkout; silent: 256Mi")
    timeout: Limit = Field(default=120.0, description="longest time one git command may take; silent: 2m")


class Retry(Model):
    """Pauses after a failure, doubled each time."""

    initial: Limit = Field(default=30.0, description="the first pause; silent: 30s")
    max: Limit = Field(default=600.0, description="the longest pause; silent: 10m")


class Window(Model):
    """Times at which changes may be made."""

    cron: Words = Field(description="when it opens: minute, hour, day, month, weekday")
    for_: Limit = Field(alias="for", description="how long it stays open")
    tz: Words = Field(default="UTC", description="time zone, such as Europe/Berlin; silent: UTC")


class Suspend(Model):
    """Hands off, until a moment, for a reason."""

    until: Words = Field(description="moment with its zone, such as 2026-12-01T08:00:00Z")
    reason: Words = Field(description="why; shown in status")


class Heal(Model):
    """What happens when the fleet is no longer what the last applied revision says."""

    mode: HealMode = Field(default="enabled", description="put it right, only say so, or do not look")


class CommitStatus(Model):
    """Where to say how a commit fared: its status, and a comment on its pull request."""

    provider: Provider = Field(description="whose API")
    token: SecretRef = Field(description="token that may write statuses and comments")
    project: Words | None = Field(default=None, description="`owner/name`; silent: from the repository's URL")
    api: Words | None = Field(default=None, description="base URL of the API; silent: that of the public service")
    comments: bool = Field(default=True, description="also comment on the pull or merge request of the commit")


class Report(Model):
    """Who else is told."""

    commit: CommitStatus | None = Field(default=None, description="commit statuses and comments")
    file: FilePath | None = Field(default=None, description="the document of `fleet sync status -o json`, kept current")


class Receiver(Model):
    """A webhook whose only effect is to look now."""

    hmac_secret: SecretRef = Field(description="secret that the sender signs its requests with")
    listen: Words = Field(default="127.0.0.1:9292", description="host:port; silent: 127.0.0.1:9292")


class Spec(Model):
    """Which repository, how often, and what may be done."""

    git: Git = Field(description="the repository")
    secrets: dict[Name, Secret] = Field(default={}, description="secrets by name, each with one source")
    interval: Limit = Field(default=60.0, description="time between two looks; silent: 1m")
    jitter: Annotated[float, Field(ge=0, le=0.5)] = Field(default=0.1, description="part by which the interval varies")
    retry: Retry = Field(default=Retry(), description="pauses after a failure")
    timeout: Limit = Field(default=7200.0, description="longest time one rollout may take; silent: 2h")
    apply: Mode = Field(default="auto", description="at once, never by itself, or in the windows")
    windows: dict[Name, Window] = Field(default={}, description="for `apply: window`: when changes may be made")
    prune: bool = Field(default=False, description="also remove groups that left the manifest")
    max_destroy: Share | None = Field(default=None, description="refuse to remove more replicas than 3, or than 20%")
    self_heal: Heal = Field(default=Heal(), description="what happens between two commits")
    suspend: Suspend | None = Field(default=None, description="hands off for a while")
    status: Report = Field(default=Report(), description="who else is told")
    receiver: Receiver | None = Field(default=None, description="a webhook whose only effect is to look now")


class Metadata(Model):
    """Who the source is."""

    name: Name = Field(description="name of the source; its folder")
    labels: dict[str, str] = Field(default={}, description="free text for people and tools")
    annotations: dict[str, str] = Field(default={}, description="free text for people and tools")


class FleetSource(Model):
    """One source, whole."""

    api_version: Literal["workerfleet.dev/v1alpha1"] = Field(description="version of this format")
    kind: Literal["FleetSource"] = Field(description="always `FleetSource`")
    metadata: Metadata = Field(description="who the source is")
    spec: Spec = Field(description="which repository, how often, and what may be done")

    @property
    def name(self) -> str:
        """The source's name."""
        return self.metadata.name
