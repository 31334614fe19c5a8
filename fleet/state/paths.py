"""Where the files of one fleet are: paths only, no file is read or created here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import FleetError

SOCKET_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Places:
    """The folder of one fleet under FLEET_HOME, and the paths in it."""

    root: Path

    @classmethod
    def of(cls, home: Path, fleet: str) -> Places:
        """The places of the named fleet."""
        return cls(home.absolute() / fleet)

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        return self.root.name

    @property
    def run(self) -> Path:
        """What a reboot may lose: configuration of the running daemon, specs, records, socket, lock."""
        return self.root / "run"

    @property
    def state(self) -> Path:
        """What must last: revisions, audit, overrides, the data of the embedded broker."""
        return self.root / "state"

    @property
    def log(self) -> Path:
        """Log files, one per replica."""
        return self.root / "log"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder in it that a fleet always has."""
        return (self.run, self.state, self.log, self.conf_d, self.specs, self.records, self.images)

    @property
    def supervisord_conf(self) -> Path:
        """The daemon's own configuration."""
        return self.run / "supervisord.conf"

    @property
    def conf_d(self) -> Path:
        """One program file per replica that is to run."""
        return self.run / "conf.d"

    @property
    def specs(self) -> Path:
        """One launch document per replica, mode 0600."""
        return self.run / "specs"

    @property
    def images(self) -> Path:
        """Sockets and states of the images that workers are forked from."""
        return self.run / "images"

    @property
    def records(self) -> Path:
        """One record per replica."""
        return self.run / "records"

    @property
    def health(self) -> Path:
        """What the health checks of each replica have told, one small file per replica."""
        return self.run / "health"

    @property
    def socket(self) -> Path:
        """supervisord's socket."""
        return self.run / "s.sock"

    @property
    def broker_socket(self) -> Path:
        """The embedded broker's socket."""
        return self.run / "broker.sock"

    @property
    def broker_data(self) -> Path:
        """The embedded broker's data."""
        return self.state / "broker"

    @property
    def lock(self) -> Path:
        """The lock of the command that changes the fleet."""
        return self.run / "lock"

    @property
    def revisions(self) -> Path:
        """One applied manifest per file."""
        return self.state / "revisions"

    @property
    def audit(self) -> Path:
        """The audit log: what happened, by whom and why; append-only."""
        return self.state / "audit.ndjson"

    @property
    def key(self) -> Path:
        """The key of the fingerprints of secrets."""
        return self.state / "key"

    @property
    def applied(self) -> Path:
        """What was applied last."""
        return self.state / "standing.json"

    @property
    def overrides(self) -> Path:
        """Live exceptions to the manifest."""
        return self.state / "overrides.yaml"

    @property
    def decisions(self) -> Path:
        """Slots of the groups that autoscale, as the controller decided."""
        return self.state / "decisions.json"

    @property
    def migration(self) -> Path:
        """Which groups `fleet migrate` moved, and how far."""
        return self.state / "migration.json"

    @property
    def counters(self) -> Path:
        """What each replica has done in all its processes, one small file per replica."""
        return self.state / "counters"

    @property
    def notifications(self) -> Path:
        """How far the audit was read for notifications, and the messages that are still to be sent."""
        return self.state / "notifications.json"

    @property
    def notifications_lock(self) -> Path:
        """Held by the one process that sends notifications now."""
        return self.run / "notifications.lock"

    @property
    def rollout_orders(self) -> Path:
        """What a person tells the process that carries out a rollout."""
        return self.run / "rollout.json"

    @property
    def controller(self) -> Path:
        """The controller's last look and its memory."""
        return self.run / "controller.json"

    @property
    def controller_heartbeat(self) -> Path:
        """When the controller looked last, and when it looks again."""
        return self.run / "controller.beat"

    @property
    def healing(self) -> Path:
        """What the controller healed, and what it gave up."""
        return self.run / "healing.json"

    @property
    def controller_lock(self) -> Path:
        """Held by the controller as long as it runs."""
        return self.run / "controller.lock"

    @property
    def foreground_lock(self) -> Path:
        """Held by ``fleet run`` as long as it runs."""
        return self.run / "foreground.lock"

    def spec_file(self, replica: str) -> Path:
        """The launch document of a replica."""
        return self.specs / f"{replica}.json"

    def program_file(self, replica: str) -> Path:
        """The supervisord program file of a replica."""
        return self.conf_d / f"{replica}.conf"

    @property
    def accounts(self) -> Path:
        """One folder per account that replicas run under, where that is not fleet's own; named by its number."""
        return self.root / "accounts"

    def account_uids(self) -> tuple[int, ...]:
        """Accounts that have such a folder."""
        try:
            return tuple(sorted(int(path.name) for path in self.accounts.iterdir() if path.name.isdigit()))
        except OSError:
            return ()

    def passable(self) -> tuple[Path, ...]:
        """Folders that other accounts pass through to their own, once there is one; they cannot list them."""
        return (self.root, self.state) if self.accounts.is_dir() else ()

    def account_specs(self, uid: int) -> Path:
        """Copies of the launch documents of this account's replicas, which they themselves read."""
        return self.accounts / str(uid) / "specs"

    def account_records(self, uid: int) -> Path:
        """The records and crash histories of this account's replicas, which they themselves write."""
        return self.accounts / str(uid) / "records"

    def record_file(self, replica: str, *, accounts: Iterable[int] | None = None) -> Path:
        """The record of a replica, in the folder of its account where it has one.

        accounts: what ``account_uids`` gave, where it has been asked just now for many replicas.
        """
        return self._kept(f"{replica}.rec", accounts)

    def starts_file(self, replica: str, *, accounts: Iterable[int] | None = None) -> Path:
        """The crash history of a replica, kept by its launcher; beside its record."""
        return self._kept(f"{replica}.starts", accounts)

    def _kept(self, name: str, accounts: Iterable[int] | None) -> Path:
        places = (self.account_records(uid) / name for uid in (self.account_uids() if accounts is None else accounts))
        return next((place for place in places if os.path.lexists(place)), self.records / name)

    def log_file(self, replica: str) -> Path:
        """The log of a replica."""
        return self.log / f"{replica}.log"


def is_home_of_account(folder: Path) -> bool:
    """Whether this is the home folder of the account that runs this."""
    return folder.resolve() in (Path("/"), Path.home().resolve())


def default_home() -> Path:
    """``/var/lib/fleet`` for root, else ``$XDG_STATE_HOME/fleet``."""
    if os.geteuid() == 0:
        return Path("/var/lib/fleet")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "fleet"


def home_of(environ: Mapping[str, str]) -> Path:
    """The same folder as ``settings.load().home``, for code that imports as little as possible."""
    return Path(environ["FLEET_HOME"]) if environ.get("FLEET_HOME") else default_home()


def check_socket_path(path: Path, *, suffix_bytes: int = 0) -> None:
    """Raise FleetError for a path that is too long to bind, with ``suffix_bytes`` more that the daemon adds to it.

    supervisord binds ``<path>.<pid>`` first.
    """
    length = len(str(path).encode(errors="surrogateescape")) + suffix_bytes
    if length > SOCKET_PATH_BYTES:
        raise FleetError(
            f"{path}: too long for a unix socket by {length - SOCKET_PATH_BYTES} bytes",
            hint="set FLEET_HOME to a shorter path, for example /run/fleet or ~/.fleet",
        )
