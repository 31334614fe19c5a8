"""The models of ``spec.kubernetes``: what a cluster needs to know beside the fleet itself."""

from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.field_types import Count, FilePath, GroupName, Limit, Matching, Name

OBJECT_NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
NAMESPACE_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
SECRET_KEY_PATTERN = r"^[A-Za-z0-9._-]{1,253}$"
QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

ObjectName = Annotated[str, Matching(OBJECT_NAME_PATTERN)]
Namespace = Annotated[str, Matching(NAMESPACE_PATTERN)]
LabelKey = Annotated[str, Matching(LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Matching(LABEL_VALUE_PATTERN)]
SecretKey = Annotated[str, Matching(SECRET_KEY_PATTERN)]
Quantity = Annotated[str, Matching(QUANTITY_PATTERN), Field(examples=["500m", "2", "512Mi"])]
Image = Annotated[str, Matching(r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,499}$")]


class Resources(Model):
    """What a pod asks for, and what it may not exceed."""

    requests: dict[LabelKey, Quantity] = Field(
        default={}, description="as `cpu: 500m`; memory without a value: `perReplica` and `perSlot` together"
    )
    limits: dict[LabelKey, Quantity] = Field(default={}, description="as `memory: 1Gi`")


class PodFields(Model):
    """What `spec.kubernetes` says for all pods, and a group under it for its own."""

    image: Image | None = Field(default=None, description="container image that holds fleet and the app")
    annotations: dict[LabelKey, str] | None = Field(default=None, description="annotations of the pods")
    labels: dict[LabelKey, LabelValue] | None = Field(default=None, description="further labels of the pods")
    node_selector: dict[LabelKey, LabelValue] | None = Field(default=None, description="labels that nodes must have")
    tolerations: list[dict[str, Any]] | None = Field(default=None, description="as Kubernetes has them")
    topology_spread: list[dict[str, Any]] | None = Field(
        default=None, description="`topologySpreadConstraints`; without a `labelSelector` the group's own pods"
    )
    priority_class: ObjectName | None = Field(default=None, description="name of a PriorityClass")
    resources: Resources | None = Field(default=None, description="requests and limits of a pod")


class KubernetesGroup(PodFields):
    """What one group has of its own; a field given here replaces that of `spec.kubernetes`."""

    pack: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None,
        description="so many replicas in each pod, kept by `fleet run` in it and forked from one image of the app where"
        " that is possible; default: 1",
    )
    lease: bool | None = Field(
        default=None,
        description="the program runs only while its pod holds a Lease, so that it never runs twice; default: yes for a"
        " command of one replica with `rollout: {strategy: recreate}`, as beat is",
    )

    patch: dict[str, Any] = Field(
        default={}, description="merged into the Deployment at the end: maps merge, anything else replaces"
    )


class SecretKeyRef(Model):
    """Where the cluster keeps the value of a declared secret."""

    name: ObjectName = Field(description="name of a Secret in the same namespace")
    key: SecretKey = Field(description="key in it")


class Keda(Model):
    """How KEDA reaches the broker, for groups that autoscale. A plain `redis://host` URL needs none of it."""

    broker: Literal["redis", "rabbitmq"] | None = Field(
        default=None, description="kind of broker; default: by the scheme of the broker's URL"
    )
    address: Annotated[str, Matching(r"^[A-Za-z0-9._-]+:[0-9]{1,5}$")] | None = Field(
        default=None, description="Redis: `host:port`; default: from the broker's URL"
    )
    database: Count | None = Field(default=None, description="Redis: number of the database; default: from the URL")
    username: str | None = Field(default=None, description="Redis: the user")
    password: Name | None = Field(default=None, description="Redis: the declared secret that holds the password")
    tls: bool | None = Field(default=None, description="Redis: encrypt; default: as the URL says")
    key_prefix: str = Field(default="", description="Redis: the app's `global_keyprefix`")
    priority_steps: list[Annotated[int, Field(ge=0, le=9)]] = Field(
        default=[0, 3, 6, 9], description="Redis: the app's `priority_steps`; each is a list of its own"
    )
    host: Name | None = Field(
        default=None,
        description="RabbitMQ: the declared secret that holds the URL; with `http://` what workers hold counts, too;"
        " default: the broker's secret",
    )
    polling: Limit = Field(default=15.0, description="time between two looks")
    cooldown: Limit = Field(default=300.0, description="time without work before a group goes to zero")


class Kubernetes(PodFields):
    """What the target `kubernetes` needs; a host ignores it."""

    context: Annotated[str, Matching(r"^[!-~]{1,253}$")] | None = Field(
        default=None,
        description="context of the kubeconfig that verbs work in, or `in-cluster` for a process in a pod; never taken"
        " from the kubeconfig's current one",
    )
    namespace: Namespace | None = Field(default=None, description="namespace of all objects; default: none is written")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="when the image is pulled; default: as Kubernetes has it"
    )
    pull_secrets: list[ObjectName] = Field(default=[], description="names of Secrets for the registry")
    service_account: ObjectName | None = Field(
        default=None, description="a ServiceAccount that exists; default: one of the fleet's own, without any right"
    )
    workdir: FilePath = Field(default="/app", description="working folder in the image, also importable")
    secrets: dict[Name, SecretKeyRef] = Field(
        default={},
        description="where the values of declared secrets are; default: Secret `<fleet>-secrets`, key `<secret>`",
    )
    network_policy: Literal["none", "deny-ingress"] = Field(
        default="none", description="`deny-ingress`: nobody may open a connection to a worker"
    )
    metrics: Literal["none", "port", "annotations"] = Field(
        default="none",
        description="`port`: the pods of all groups but jobs serve their metrics on port 9465, `/metrics`;"
        " `annotations`: they carry `prometheus.io/scrape`, `port` and `path` as well",
    )
    scaler: Literal["native", "fleet"] = Field(
        default="native",
        description="who says how many pods a group that autoscales has: KEDA by the length of its queues, or fleet's"
        " controller in the cluster, which divides one budget",
    )
    keda: Keda = Field(default=Keda.empty(), description="how KEDA reaches the broker")
    groups: dict[GroupName, KubernetesGroup] = Field(default={}, description="what single groups have of their own")
