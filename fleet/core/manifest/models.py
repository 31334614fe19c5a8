"""The models of a manifest, exactly as people write it.

Field names are camelCase in YAML and snake_case here. Durations become seconds (float), sizes become bytes (int). These
models check shapes and single values; what spans several fields is checked in :mod:`fleet.core.manifest.checks`. The
descriptions are what editors show and what docs/manifest.md is made of.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.field_types import (
    HOST_PATTERN,
    URL_PATH_PATTERN,
    Account,
    Bytes,
    Command,
    ControlCommand,
    Count,
    EnvName,
    EnvValue,
    FilePath,
    GroupName,
    Import,
    Limit,
    ListenText,
    Matching,
    Name,
    OtlpUrl,
    Positive,
    QueueName,
    Rate,
    Seconds,
    Slots,
    TaskName,
    Template,
    Tick,
    Weight,
    word_or_map,
)
from fleet.core.manifest.kubernetes_models import Kubernetes
from fleet.core.manifest.notify_models import Notification
from fleet.core.manifest.secret_ref import SecretRef as SecretRef

API_VERSION = "workerfleet.dev/v1alpha1"
KIND = "Fleet"


class Pool(Model):
    """How a replica runs tasks. Written as a word (`pool: solo`) or as a map."""

    type: Literal["solo", "prefork", "threads", "gevent", "eventlet", "asyncio", "custom"] | None = Field(
        default=None, description="kind of pool; default: the app's `worker_pool`, else prefork"
    )
    concurrency: Positive | None = Field(
        default=None, description="slots in one replica; when shared or autoscaled, the most slots in one replica"
    )
    min_concurrency: Positive | None = Field(
        default=None,
        description="of `worker: celery`: slots that it shrinks to while it has little to do, as with"
        " `--autoscale=CONCURRENCY,MIN`; default: it keeps all",
    )
    class_: Import | None = Field(default=None, alias="class", description="`module:Class` of a custom pool")
    max_tasks_per_child: Positive | None = Field(
        default=None, description="tasks after which a child process is replaced"
    )
    max_memory_per_child: Bytes | None = Field(
        default=None,
        description="resident memory after which a child is replaced, when its task is done; at twice as much it is"
        " killed and the task fails",
    )
    max_age_per_child: Limit | None = Field(
        default=None, description="age at which a child is replaced, when its task is done"
    )
    start_method: Literal["fork", "forkserver", "spawn"] | None = Field(
        default=None,
        description="how child processes are made: copies of the worker, copies of a process that only imported the"
        " app, or fresh interpreters; default: fork",
    )


class Share(Model):
    """A static part of `spec.concurrency`: what fixed groups leave is divided by weight, between bounds."""

    weight: Weight = Field(default=1, description="part of what is divided, relative to the other groups")
    min: Slots = Field(default=1, description="slots it always has")
    max: Slots | None = Field(default=None, description="slots it never exceeds")
    tier: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="lower tiers are served before higher ones"
    )
    unit: Positive = Field(default=1, description="slots that move together")


class Autoscale(Share):
    """A part of `spec.concurrency` that the controller moves between its bounds."""

    target_wait: Limit | None = Field(default=None, description="95 % of tasks should start within this time")
    expected_runtime: Limit | None = Field(
        default=None, description="how long one task takes, until it has been measured"
    )
    idle_after: Limit | None = Field(
        default=None, description="time without work after which it goes to zero; needs `min: 0`"
    )
    loans: bool | None = Field(default=None, description="may use slots above its share while others do not need them")
    on_missing_metrics: Literal["hold", "static"] = Field(
        default="hold", description="without measurements keep what it has, or go to the static share"
    )


class Queue(Model):
    """Options of one queue."""

    priority: Annotated[int, Field(ge=0, le=9)] | None = Field(
        default=None, description="queues with a higher number are emptied first"
    )


class LookAhead(Model):
    """How much a replica takes ahead of its free slots. Written as a word (`auto` or `"off"`) or as a map."""

    time: Limit | None = Field(default=None, description="what is taken ahead is done within this time; default: 10ms")
    most: Positive | None = Field(default=None, description="the most messages taken ahead; default: 64")


class Task(Model):
    """How tasks are delivered and limited."""

    time_limit: Limit | None = Field(default=None, description="a task that runs longer is ended")
    soft_time_limit: Limit | None = Field(default=None, description="an exception is raised in a task that runs longer")
    acks: Literal["early", "late"] | None = Field(
        default=None,
        description="acknowledge before or after a task runs; default: the app's setting, for a registry late",
    )
    prefetch: Positive | None = Field(
        default=None, description="messages a replica holds in all; default: as many as it has free slots"
    )
    look_ahead: (
        Annotated[
            Annotated[Literal["auto", "off"], Tag("word")] | Annotated[LookAhead, Tag("map")],
            Discriminator(word_or_map),
        ]
        | None
    ) = Field(
        default=None,
        description="short tasks are fetched and acknowledged several at a time, a task that takes longer alone;"
        " has no effect where `prefetch` is set; default: auto",
    )
    max_attempts: Positive | None = Field(default=None, description="deliveries of one task before it is dead-lettered")
    rate_limits: dict[TaskName, Rate] | None = Field(
        default=None,
        description="how often a replica may start a task, by the task's name, such as `shop.mail: 10/s`;"
        " default: the app's own setting",
    )
    dead_letters: Literal["fleet", "broker", "none"] | None = Field(
        default=None,
        description="where messages go that nobody can run: `fleet` to `<queue>.dead`, `broker` by the queue's"
        " dead-letter exchange, `none` away; default: `broker` where the app declares a queue with such an exchange,"
        " else `fleet`",
    )


class Drain(Model):
    """How a replica leaves."""

    timeout: Seconds | None = Field(default=None, description="time it may take to finish what it runs; default: 60s")


class Backoff(Model):
    """Growing pauses between restarts of a crashing replica."""

    initial: Limit | None = Field(default=None, description="the first pause, doubled at each crash; default: 1s")
    max: Limit | None = Field(default=None, description="the longest pause; default: 1m")


class Restart(Model):
    """When a crashing replica is started again, and when it is parked."""

    backoff: Backoff | None = Field(default=None, description="pauses between restarts")
    max_crashes: Positive | None = Field(
        default=None, description="more crashes than this within the window park it; default: 8"
    )
    window: Limit | None = Field(default=None, description="how far back crashes are counted; default: 10m")
    policy: Literal["always", "onFailure", "never"] | None = Field(
        default=None,
        description="of a command: start it again whenever it ends, unless it ends with exit code 0, or not at all;"
        " default: always, of a job never",
    )


class Stop(Model):
    """How a command is asked to end, before it is killed when `drain.timeout` is over."""

    signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH"] | None = Field(
        default=None, description="the signal; default: TERM"
    )
    group: bool | None = Field(
        default=None,
        description="signal everything it has started as well, and kill what is left; default: false, for a shell line"
        " always",
    )


class Limits(Model):
    """What one replica may take, by a control group where fleet can make one; its log says which holds."""

    open_files: Annotated[int, Field(ge=16, le=1_048_576)] | None = Field(
        default=None, description="files that a process may have open; default: as many as allowed, up to 65,536"
    )
    memory: Annotated[Bytes, Field(ge=1 << 20)] | None = Field(
        default=None, description="memory; without a control group, the address space of each process"
    )
    cpus: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="processors; without a control group, as many whole ones to run on"
    )


class GroupRelease(Model):
    """Code of one group that is elsewhere. What is left out is as in `spec.release`."""

    workdir: FilePath | None = Field(
        default=None, description="working folder, also importable; relative to the manifest"
    )
    python: FilePath | None = Field(default=None, description="the interpreter")


class Judge(Model):
    """How much worse than the old replicas the new ones may be."""

    failure_rate: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="percentage points that the rate of failed tasks may be higher; default: 5"
    )
    latency: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="how many times as long a run may take, on average; default: 1.5"
    )
    memory: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="how many times as much memory a replica may use, on average; default: 1.5"
    )
    crashes: Count | None = Field(default=None, description="crashes of new replicas that are allowed; default: 0")
    min_tasks: Positive | None = Field(
        default=None, description="tasks the new ones must have done for rates to be judged; default: 20"
    )


class CanaryStep(Model):
    """One share of a canary that grows."""

    replicas: Positive | None = Field(default=None, description="how many replicas have the new revision by then")
    percent: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None, description="instead of `replicas`: a part of the group's, rounded up"
    )
    for_: Limit | None = Field(
        default=None, alias="for", description="how long new and old ones are compared; default: that of the canary"
    )


class Canary(Model):
    """Some replicas get the new revision first and take their share of the same queues."""

    replicas: Positive | None = Field(default=None, description="how many replicas; default: 1")
    percent: Annotated[int, Field(ge=1, le=99)] | None = Field(
        default=None, description="instead of `replicas`: a part of the group's, rounded up"
    )
    for_: Limit | None = Field(
        default=None, alias="for", description="how long new and old ones are compared; default: 2m"
    )
    steps: Annotated[list[CanaryStep], Field(min_length=1)] | None = Field(
        default=None,
        description="instead of `replicas` and `percent`: shares that grow; the new ones are judged at the end of each",
    )
    judge: Judge | None = Field(default=None, description="how much worse the new ones may be")


class BlueGreen(Model):
    """The whole new set comes up beside the old one, is judged, and then the old one drains at once."""

    for_: Limit | None = Field(
        default=None, alias="for", description="how long new and old ones are compared; default: 2m"
    )
    judge: Judge | None = Field(default=None, description="how much worse the new ones may be")


class Rollout(Model):
    """How replicas are replaced when what they must be changes."""

    strategy: Literal["rolling", "recreate"] | None = Field(
        default=None, description="a few at a time, or all stopped before the first new one starts; default: rolling"
    )
    max_surge: Count | None = Field(
        default=None, description="replicas there may be beyond the wanted number; default: 1, for a command 0"
    )
    max_unavailable: Count | None = Field(
        default=None, description="replicas that may be missing meanwhile; default: a quarter of them"
    )
    on_failure: Literal["pause", "rollback"] | None = Field(
        default=None,
        description="what happens when new replicas do not get ready, crash, or are judged worse; default: pause,"
        " with a canary rollback",
    )
    min_ready: Seconds | None = Field(
        default=None,
        description="time for which a new replica must be ready, without a crash, before the next one is replaced;"
        " default: 0s",
    )
    deadline: Limit | None = Field(
        default=None, description="time after which a rollout of the group that is not done has failed; default: none"
    )
    canary: Canary | None = Field(
        default=None, description="compare some new replicas with the old ones before the rest is replaced"
    )
    blue_green: bool | BlueGreen | None = Field(
        default=None,
        description="bring up all new replicas beside the old ones, compare them, then drain all old ones; `true` for"
        " the defaults; default: false",
    )
    peak: Literal["budget", "surge"] | None = Field(
        default=None,
        description="budget: slots in use stay within spec.concurrency meanwhile, so that spares come only where it has"
        " room, and else an old replica leaves first; surge: spares come on top of it; default: surge",
    )


class HttpCheck(Model):
    """A request to a port of this machine; a status from 200 to 399 passes."""

    port: Annotated[int, Field(ge=1, le=65_535)] = Field(description="the port that the replica listens on")
    path: Annotated[str, StringConstraints(max_length=2000), Matching(URL_PATH_PATTERN)] = Field(
        default="/", description="path of the request, such as `/healthz`"
    )
    host: Annotated[str, Matching(HOST_PATTERN)] = Field(
        default="localhost", description="the request's Host header, for an app that answers to its own names only"
    )


class WaitFor(Model):
    """What must answer before the program of a replica starts. Written as a list of URLs or as a map."""

    urls: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=4096)]], Field(min_length=1)] = (
        Field(
            description="such as `tcp://db:5432`, `redis://cache/0`, `amqp://mq`, `http://api/ready`, `unix:///x.sock`"
        )
    )
    timeout: Limit | None = Field(
        default=None, description="a start that has waited this long fails, and is tried again; default: 1m"
    )


class Health(Model):
    """When a replica counts as ready and, where a check is given, as healthy."""

    ready_after: Seconds | None = Field(
        default=None, description="a command is ready when it has lived this long; default: 1s"
    )
    ready_timeout: Limit | None = Field(
        default=None, description="a replica that is not ready by then has failed; default: 1m"
    )
    command: Command | None = Field(
        default=None,
        description="the check: a program that ends with exit code 0, in the replica's folder, with its environment and"
        " account",
    )
    http: HttpCheck | None = Field(default=None, description="instead of `command`: a request that is answered")
    interval: Limit | None = Field(default=None, description="time between two checks; default: 10s")
    timeout: Limit | None = Field(default=None, description="a check that takes longer has failed; default: 5s")
    failures: Positive | None = Field(
        default=None,
        description="so many failed checks one after another, and it is unhealthy: not ready, and restarted;"
        " default: 3",
    )


class Logging(Model):
    """What a worker writes to its log."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = Field(default=None, description="default: INFO")
    format: Literal["text", "json"] | None = Field(default=None, description="default: text")
    to: Literal["file", "journald", "both"] | None = Field(
        default=None,
        description="where the worker's own lines go; what a task prints goes to the file always; default: file",
    )


class RemoteControl(Model):
    """What `celery inspect`, `celery control` and all who can write to the broker may ask of fleet's own worker."""

    enabled: bool | None = Field(
        default=None, description="false: it listens to no commands and sends no events; default: as the app says"
    )
    max_slots: Positive | None = Field(
        default=None, description="slots that `pool_grow` and `autoscale` may reach; default: 10,000"
    )
    allow: list[ControlCommand] | None = Field(
        default=None, description="commands that are answered, such as `[ping, active, revoke]`; default: all"
    )


class Price(Model):
    """What one slot or one replica costs, for `spec.budgets`."""

    memory: Bytes | None = Field(default=None, description="resident memory")
    connections: dict[Name, Count] | None = Field(
        default=None, description="connections by name, such as `postgres: 2`"
    )


class Capacity(Model):
    """What one replica of a command brings, which fleet cannot know."""

    slots: Count = Field(default=0, description="tasks it runs at a time; counts against `spec.concurrency`")
    processes: Positive = Field(default=1, description="processes it consists of")


class Requirement(Model):
    """When a group counts as there for one that depends on it."""

    condition: Literal["ready", "completed"] = Field(
        default="ready", description="all its replicas are ready; a job: it has ended with exit code 0"
    )


class EnvSource(Model):
    """Variables from one place: exactly one of `file` and `inherit`. Plans show their names only."""

    file: FilePath | None = Field(
        default=None, description="dotenv file (`NAME=value` lines), relative to the manifest; read by plan and apply"
    )
    inherit: Annotated[list[EnvName], Field(min_length=1)] | None = Field(
        default=None, description="variables of the `fleet` command by name, such as `[PORT, DATABASE_URL]`"
    )
    optional: bool = Field(default=False, description="a file or variable that is missing is no error")


class GroupFields(Model):
    """Fields of a group that `spec.defaults` may hold as well. A field that is left out takes its default."""

    app: Import | None = Field(
        default=None, description="Celery app or `fleet.Tasks` registry as `module:attribute`; default: `spec.app`"
    )
    worker: Literal["fleet", "celery"] | None = Field(
        default=None, description="who runs the app: fleet's own worker, or `celery worker`; default: fleet"
    )
    command: Command | None = Field(default=None, description="any program, instead of an app")
    job: bool | None = Field(
        default=None,
        description="a command that runs to its end, once for each version of it, of the code and of what depends on"
        " it; its exit code decides whether they start",
    )
    capacity: Capacity | None = Field(
        default=None, description="what one replica of a command brings; default: no slots"
    )
    pool: Pool | None = Field(default=None, description="how a replica runs tasks: a word such as `solo`, or a map")
    replicas: Count | None = Field(default=None, description="fixed number of replicas")
    share: Share | None = Field(default=None, description="instead of replicas: a static part of `spec.concurrency`")
    autoscale: Autoscale | None = Field(
        default=None, description="instead of replicas: a part that the controller moves"
    )
    queues: dict[QueueName, Queue] | None = Field(
        default=None,
        description="queues to consume, as a list or as a map with options; default: the app's default queue",
    )
    env: dict[EnvName, EnvValue] | None = Field(default=None, description="environment variables; numbers go in quotes")
    env_from: list[EnvSource] | None = Field(
        default=None,
        description="environment variables from files and from the surroundings; a later one wins, `env` over all",
    )
    secret_env: dict[EnvName, Name] | None = Field(
        default=None, description="environment variables from declared secrets"
    )
    task: Task | None = Field(default=None, description="how tasks are delivered and limited")
    remote_control: RemoteControl | None = Field(
        default=None, description="what may be asked of a worker over the broker"
    )
    drain: Drain | None = Field(default=None, description="how a replica leaves")
    restart: Restart | None = Field(default=None, description="when a crashing replica is started again")
    stop: Stop | None = Field(default=None, description="how a command is asked to end")
    rollout: Rollout | None = Field(default=None, description="how replicas are replaced")
    health: Health | None = Field(default=None, description="when a replica counts as ready, and as healthy")
    wait_for: WaitFor | None = Field(
        default=None, description="what must answer before the program starts, such as `[tcp://db:5432]`"
    )
    logging: Logging | None = Field(default=None, description="what a worker writes to its log")
    log_file: Template | None = Field(
        default=None, description="path of a link to the log of a replica, such as `/var/log/shop/{replica}.log`"
    )
    name: Template | None = Field(
        default=None,
        description="name of a worker on the broker, such as `celery@{group}-{index}`, for those who address it;"
        " default: `<fleet>.<replica>@<host>`, of Celery's worker `<replica>@<host>`",
    )
    release: GroupRelease | None = Field(default=None, description="the group's own folder and interpreter")
    nice: Annotated[int, Field(ge=-20, le=19)] | None = Field(
        default=None, description="priority of its processes: 19 is the lowest; below 0 needs root"
    )
    limits: Limits | None = Field(default=None, description="what one replica may take")
    user: Account | None = Field(
        default=None,
        description="account of the replicas, by name or number; another than that of fleet needs fleet to run as root;"
        " default: `spec.user`",
    )
    group: Account | None = Field(default=None, description="its group; default: that of the account")
    no_new_privileges: bool | None = Field(
        default=None, description="nothing that a replica starts can gain rights (setuid programs, `sudo`); default: no"
    )
    merge_memory: bool | None = Field(
        default=None,
        description="ask the kernel to keep one copy of equal pages of memory, where it looks for them (KSM,"
        " Linux 6.4); default: no",
    )
    per_slot: Price | None = Field(default=None, description="what one slot costs, for the budgets")
    per_replica: Price | None = Field(default=None, description="what one replica costs, for the budgets")
    paused: bool | None = Field(default=None, description="hold the group at zero replicas")
    depends_on: dict[GroupName, Requirement] | None = Field(
        default=None,
        description="groups that must be ready first, as a list or as a map such as `{migrate: completed}`",
    )


class Defaults(GroupFields):
    """Merged into every group: a group's own value wins, maps are merged, null removes (RFC 7386)."""


class Group(GroupFields):
    """Identical workers with one name: what is scaled. Exactly one of `replicas`, `share` and `autoscale`."""


class ReleaseSource(Model):
    """Code in the repository that `fleet sync` follows: a copy and a virtual environment for each version of it."""

    path: FilePath = Field(default=".", description="folder of the code, from the top of the repository")
    requirements: FilePath | None = Field(
        default=None,
        description="locked requirements below `path`; silent: `uv.lock`, `requirements.lock` or `requirements.txt`",
    )
    installer: Literal["auto", "uv", "pip"] = Field(default="auto", description="auto: uv where it is installed")
    python: FilePath | None = Field(default=None, description="interpreter to start from; silent: the one of fleet")
    keep: Positive = Field(default=3, description="versions that are kept")


class Release(Model):
    """The code that workers run. A path that is a symlink is resolved when planning, so that a new target is seen."""

    workdir: FilePath | None = Field(
        default=None,
        description="working folder, also importable; relative to the manifest; default: the manifest's folder",
    )
    python: FilePath | None = Field(default=None, description="the interpreter; default: the one that runs fleet")
    revision: str | None = Field(default=None, description="any text; when it changes, workers are replaced")
    source: ReleaseSource | None = Field(
        default=None, description="instead of workdir and python: code that `fleet sync` takes from its repository"
    )
    watch: Literal["commit", "content", "off"] | None = Field(
        default=None,
        description="replace workers when the code at the same path is another: by the commit of the checkout around"
        " the working folder, or by its source files; then another version of fleet replaces them too; default: off",
    )
    image: Literal["auto", "off"] = Field(
        default="auto",
        description="auto: the second solo, threads, prefork or asyncio worker of a kind and those after it are forked"
        " from a process that has imported the app; off: each worker imports it itself",
    )


class Broker(Model):
    """Where tasks come from: a kombu URL, given or as a secret."""

    url: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=4096), Tag("word")]
        | Annotated[SecretRef, Tag("map")],
        Discriminator(word_or_map),
    ] = Field(description="a kombu URL such as `redis://host/0`, or `{secret: name}`")
    visibility_timeout: Limit | None = Field(
        default=None,
        description="time after which the broker delivers an unacknowledged task again, where it does so by time",
    )


class Secret(Model):
    """One source of a secret value: exactly one of the fields."""

    file: FilePath | None = Field(default=None, description="file that holds it, readable by its owner only")
    env: EnvName | None = Field(default=None, description="environment variable of the `fleet` command that holds it")
    exec: Command | None = Field(default=None, description="command that prints it")


class Budgets(Model):
    """Ceilings over the whole fleet, checked at rest and at the rollout's peak."""

    processes: Positive | None = Field(default=None, description="operating system processes")
    memory: Bytes | None = Field(default=None, description="memory, from `perSlot` and `perReplica`")
    connections: dict[Name, Positive] | None = Field(
        default=None, description="connections by name, such as `postgres: 120`"
    )


class Balance(Model):
    """How `spec.concurrency` is divided over time."""

    mode: Literal["dynamic", "static", "off"] = Field(
        default="dynamic", description="whether the controller moves slots"
    )
    tick: Tick = Field(default="auto", description="time between two decisions")
    surplus: Literal["keep", "release"] = Field(
        default="keep", description="what happens with slots that no group needs"
    )
    squeeze: Seconds = Field(default=120.0, description="how long a shortage may cut others to what they need")
    tail: Literal["hold", "fill"] = Field(
        default="hold", description="leave what is less than the next unit, or give it on"
    )


HealMode = Literal["enabled", "warn", "off"]


class Heal(Model):
    """What the controller does about replicas that are not as they were applied, without anybody's command.

    `mode` is for every class that says nothing itself. `warn` writes it into the audit and does nothing. A fleet in
    which every class is `off` and no group autoscales has no controller.
    """

    mode: HealMode = Field(default="enabled", description="of every class that names none")
    stopped: HealMode | None = Field(default=None, description="stopped behind fleet's back: start it")
    stuck: HealMode | None = Field(
        default=None, description="no heartbeat, far past a time limit, takes no tasks while others do: restart it"
    )
    missing: HealMode | None = Field(default=None, description="not there: start it")
    parked: HealMode | None = Field(default=None, description="given up after too many crashes: try again")
    drift: HealMode | None = Field(
        default=None, description="other settings than applied, one too many, a process without supervisor: mend it"
    )
    overrides: HealMode | None = Field(default=None, description="an override whose `--for` is over: end it")

    def modes(self) -> dict[str, HealMode]:
        """Class -> what is done about it."""
        classes = [name for name in type(self).model_fields if name != "mode"]
        return {name: getattr(self, name) or self.mode for name in classes}


class Metrics(Model):
    """Numbers for Prometheus and OpenTelemetry."""

    listen: ListenText | None = Field(
        default=None, description="run `fleet metrics` as a program of the fleet, on a loopback address or `unix:PATH`"
    )
    tasks: bool = Field(default=True, description="whether workers count tasks by name, with histograms of their times")
    otlp: OtlpUrl | None = Field(
        default=None, description="send them to an OpenTelemetry collector: base URL of OTLP over HTTP (extra `otel`)"
    )
    every: Annotated[Seconds, Field(ge=1)] = Field(default=60.0, description="how often to send them there")

    @property
    def has_program(self) -> bool:
        """Whether a program of the fleet serves or sends them."""
        return self.listen is not None or self.otlp is not None


class Tracing(Model):
    """Traces of tasks by OpenTelemetry; an empty map switches them on."""

    otlp: OtlpUrl | None = Field(
        default=None,
        description="where spans go: base URL of OTLP over HTTP; default: the `OTEL_EXPORTER_OTLP_` variables in `env`",
    )
    sample: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="the part kept of traces that begin here; default: `OTEL_TRACES_SAMPLER`, else all",
    )


class Spec(Model):
    """What the fleet is."""

    app: Import | None = Field(
        default=None, description="Celery app or `fleet.Tasks` registry of all groups, `module:attribute`"
    )
    release: Release = Field(default=Release.empty(), description="the code that workers run")
    user: Account | None = Field(
        default=None,
        description="account of the replicas whose group names none, and of the embedded broker; default: fleet's",
    )
    group: Account | None = Field(default=None, description="its group; default: that of the account")
    broker: (
        Annotated[
            Annotated[Literal["embedded"], Tag("word")] | Annotated[Broker, Tag("map")], Discriminator(word_or_map)
        ]
        | None
    ) = Field(default=None, description="`embedded` (a Redis that fleet runs itself) or a map with `url`")
    secrets: dict[Name, Secret] = Field(default={}, description="secrets by name, each with one source")
    concurrency: Slots | None = Field(default=None, description="the budget of slots over all groups")
    balance: Balance = Field(default=Balance.empty(), description="how the budget is divided over time")
    budgets: Budgets = Field(default=Budgets.empty(), description="ceilings over the whole fleet")
    heal: Heal = Field(default=Heal.empty(), description="what the controller puts right by itself")
    notify: list[Notification] = Field(default=[], description="who is told of what happens")
    metrics: Metrics = Field(default=Metrics.empty(), description="numbers for Prometheus and OpenTelemetry")
    tracing: Tracing | None = Field(
        default=None, description="traces of tasks, from the send to the run (extra `otel`); off without it"
    )
    target: Literal["supervisor", "kubernetes"] | None = Field(
        default=None, description="where the fleet lives: on this host (the default) or in a cluster; `--target` wins"
    )
    kubernetes: Kubernetes | None = Field(
        default=None, description="what a cluster needs to know; a host takes no notice of it"
    )
    defaults: Defaults = Field(default=Defaults.empty(), description="merged into every group")
    groups: dict[GroupName, Group] = Field(default={}, description="the groups by name; at least one")


class Metadata(Model):
    """The name of the fleet, and what people write beside it."""

    name: Name = Field(description="name of the fleet; its folder, and part of its workers' names")
    labels: dict[str, str] = Field(default={}, description="free text for people and tools")
    annotations: dict[str, str] = Field(default={}, description="free text for people and tools")


class Manifest(Model):
    """One fleet, whole."""

    api_version: Literal["workerfleet.dev/v1alpha1"] = Field(description="version of this format")
    kind: Literal["Fleet"] = Field(description="always `Fleet`")
    metadata: Metadata = Field(description="the name of the fleet")
    spec: Spec = Field(description="what the fleet is")

    @property
    def name(self) -> str:
        return self.metadata.name


def field_named(model: type[BaseModel], alias: str) -> Any | None:
    """The pydantic field that is written ``alias`` in a manifest, or None."""
    return next((info for name, info in model.model_fields.items() if alias == (info.alias or name)), None)
