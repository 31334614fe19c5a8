"""The types of a manifest's single values: names, numbers, durations (seconds, float) and sizes (bytes, int)."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from fleet.core.text.format import DURATION_PATTERN, seconds_in, shown
from fleet.core.text.listen import listen_address
from fleet.core.text.otlp_url import otlp_url

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,30}$"
GROUP_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
QUEUE_PATTERN = r"^[A-Za-z0-9_.:@/-]{1,200}$"
TASK_PATTERN = r"^\S{1,200}$"
RATE_PATTERN = r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)/[smh]$"
IMPORT_PATTERN = r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$"
TEMPLATE_PATTERN = r"^([A-Za-z0-9_.:@%/+-]|\{(fleet|group|index|replica|host)\}){1,400}$"
ACCOUNT_PATTERN = r"^[^\s/:]{1,64}$"
URL_PATH_PATTERN = r"^/[!-~]*$"
HOST_PATTERN = r"^[A-Za-z0-9.:\[\]_-]{1,255}$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti)?$"

LONGEST_MATCHED = 4096
LONGEST_SECONDS = 366 * 86_400.0
LARGEST_BYTES = 1 << 50

_SIZE_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class Matching:
    """Text that fits a pattern, from its ``^`` to its ``$``, with the schema and the error of pydantic's constraint.

    pydantic compiles a pattern with the models, anew for every field that has it: half the time that compiling takes.
    This one is compiled when it is needed. Text longer than ``LONGEST_MATCHED`` fits none.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def checked(self, text: str) -> str:
        """The text. Raises PydanticKnownError for one that does not fit."""
        if len(text) > LONGEST_MATCHED or re.fullmatch(self.pattern[1:-1], text) is None:
            raise PydanticKnownError("string_pattern_mismatch", {"pattern": self.pattern})
        return text


def duration_seconds(text: object) -> float:
    """``30s``, ``5m``, ``1h30m`` -> seconds. Raises ValueError with a sentence for people, its hint after ``; ``."""
    seconds = seconds_in(text) if isinstance(text, str) else None
    if seconds is None:
        raise ValueError(f"not a duration: {shown(text)}; {_duration_hint(text)}")
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"longer than a year: {shown(text)}; leave the field out for no limit")
    return seconds


def size_bytes(text: object) -> int:
    """``512Mi``, ``2Gi`` -> bytes. Raises ValueError with a sentence for people, its hint after ``; ``."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(Ki|Mi|Gi|Ti)?", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"not a size: {shown(text)}; {_size_hint(text)}")
    size = int(float(match[1]) * _SIZE_UNITS[match[2] or ""])
    if size > LARGEST_BYTES:
        raise ValueError(f"larger than any machine: {shown(text)}; leave the field out for no limit")
    return size


def _duration_hint(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'a duration has a unit: write "{value}s" for seconds'
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return f'a duration has a unit: write "{value}s" for seconds'
    return "write it like 30s, 5m or 1h30m"


def _size_hint(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'a size is text with a unit: write {value}Mi for mebibytes, or "{value}" for bytes'
    return "write it like 512Mi or 2Gi"


def word_or_map(value: object) -> str:
    return "word" if isinstance(value, str) else "map"


def tick_seconds(value: object) -> object:
    """``auto``, or a duration in seconds."""
    return value if value == "auto" else duration_seconds(value)


def listen_text(value: object) -> object:
    """The text of an address to listen on. Raises ValueError with a sentence for people, its hint after ``; ``."""
    if isinstance(value, str):
        listen_address(value)
    return value


Seconds = Annotated[
    float,
    BeforeValidator(duration_seconds),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["30s", "5m", "1h"]}),
]
Bytes = Annotated[
    int,
    BeforeValidator(size_bytes),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN, "examples": ["512Mi", "2Gi"]}),
]
Limit = Annotated[Seconds, Field(gt=0)]
Tick = Annotated[
    Literal["auto"] | float,
    BeforeValidator(tick_seconds),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "string", "pattern": DURATION_PATTERN}]}),
]
Name = Annotated[str, Matching(NAME_PATTERN)]
GroupName = Annotated[str, Matching(GROUP_PATTERN)]
Template = Annotated[str, Matching(TEMPLATE_PATTERN), Field(examples=["{group}-{index}"])]
TaskName = Annotated[str, Matching(TASK_PATTERN)]
Rate = Annotated[str, Matching(RATE_PATTERN), Field(examples=["10/s", "100/m"])]
EnvName = Annotated[str, StringConstraints(max_length=255), Matching(ENV_PATTERN)]
EnvValue = Annotated[str, StringConstraints(max_length=131_072)]
Argument = Annotated[str, StringConstraints(max_length=131_071)]
Command = Annotated[list[Argument], Field(min_length=1, max_length=1000)]
ControlCommand = Annotated[str, StringConstraints(max_length=100), Matching(ENV_PATTERN)]
Account = Annotated[str, Matching(ACCOUNT_PATTERN)]
FilePath = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
QueueName = Annotated[str, Matching(QUEUE_PATTERN)]
Import = Annotated[str, StringConstraints(max_length=500), Matching(IMPORT_PATTERN)]
ListenText = Annotated[
    str,
    BeforeValidator(listen_text),
    StringConstraints(max_length=200),
    Field(examples=["127.0.0.1:9808", "unix:/run/fleet-metrics.sock"]),
]
OtlpUrl = Annotated[
    str, BeforeValidator(otlp_url), StringConstraints(max_length=2000), Field(examples=["http://127.0.0.1:4318"])
]
Count = Annotated[int, Field(ge=0, le=10_000)]
Slots = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[int, Field(ge=1, le=100_000)]
Weight = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
