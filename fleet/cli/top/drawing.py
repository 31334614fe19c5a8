"""How top looks: a picture and a state as lines that fit the screen. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fleet.cli.output import group_colour, painted
from fleet.cli.top.keys import HELP, TopState
from fleet.cli.top.measuring import Picture
from fleet.cli.view import age, megabytes, state_style
from fleet.core.status import GroupStatus, WorkerStatus
from fleet.core.text.format import one_line

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN_BLOCKS = " .:-=+*#@"
_HEAD_LINES, _FOOT_LINES = 4, 1


@dataclass(frozen=True, slots=True)
class Screen:
    """Columns and lines there are, and what they can show. height None: as many lines as it takes, without keys."""

    width: int
    height: int | None
    colour: bool = False
    blocks: bool = True

    @property
    def table_rows(self) -> int:
        """How many rows of the table fit."""
        return 1 << 30 if self.height is None else max(1, self.height - _HEAD_LINES - _FOOT_LINES)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a group, or a replica. indent: it stands below its group."""

    name: str
    group: GroupStatus
    worker: WorkerStatus | None = None
    indent: bool = False


@dataclass(frozen=True, slots=True)
class _Column:
    """from_width: the narrowest screen that it is shown on."""

    title: str
    width: int
    from_width: int
    right: bool = True


_COLUMNS = (
    _Column("NAME", 18, 0, right=False),
    _Column("STATE", 9, 0, right=False),
    _Column("SLOTS", 6, 40),
    _Column("DONE", 6, 50),
    _Column("FAIL", 4, 76),
    _Column("/S", 5, 56),
    _Column("CPU%", 4, 70),
    _Column("MEM", 6, 64),
    _Column("UP", 6, 92),
)


# --- which rows, in which order


def rows_of(picture: Picture, state: TopState) -> list[Row]:
    """The rows of the table: filtered, ordered, as a tree or flat."""
    weight = _WEIGHTS[state.order]
    groups = list(picture.status.groups.values())
    if not state.is_tree:
        flat = [Row(one.name, group, one) for group in groups for one in group.workers]
        return _ordered([row for row in flat if _matches(row, state.filter)], picture, state, weight)
    found: list[Row] = []
    heads = _ordered([Row(group.name, group) for group in groups], picture, state, weight)
    for head in heads:
        own = [Row(one.name, head.group, one, indent=True) for one in head.group.workers]
        chosen = own if _matches(head, state.filter) else [row for row in own if _matches(row, state.filter)]
        if chosen or _matches(head, state.filter):
            found.append(head)
        if head.name not in state.folded:
            found += _ordered(chosen, picture, state, weight)
    return found


def _ordered(rows: list[Row], picture: Picture, state: TopState, weight: Callable[[Row, Picture], float]) -> list[Row]:
    """The largest first; by name where nothing else tells them apart."""
    by_name = sorted(rows, key=_natural, reverse=state.order == "name" and state.is_reversed)
    if state.order == "name":
        return by_name
    return sorted(by_name, key=lambda row: weight(row, picture), reverse=not state.is_reversed)


def _natural(row: Row) -> tuple[str, int]:
    group, _, index = row.name.rpartition(".")
    return (group, int(index)) if group and index.isdigit() else (row.name, -1)


def _workers(row: Row) -> tuple[WorkerStatus, ...]:
    return (row.worker,) if row.worker is not None else row.group.workers


_WEIGHTS: dict[str, Callable[[Row, Picture], float]] = {
    "name": lambda _row, _picture: 0.0,
    "age": lambda row, _: max((task.since_seconds for one in _workers(row) for task in one.tasks), default=-1.0),
    "cpu": lambda row, picture: sum(picture.cpu.get(one.name, 0.0) for one in _workers(row)),
    "memory": lambda row, _: float(sum(one.memory_bytes for one in _workers(row))),
    "rate": lambda row, picture: picture.rates.get(row.name, 0.0),
    "done": lambda row, _: float(sum(one.processed for one in _workers(row))),
    "failed": lambda row, _: float(sum(one.failed for one in _workers(row))),
    "uptime": lambda row, _: max((one.uptime_seconds for one in _workers(row)), default=0.0),
}


def _matches(row: Row, text: str) -> bool:
    if not text:
        return True
    words = [row.name]
    if row.worker is not None:
        words += [str(row.worker.trouble or row.worker.state), *(task.name for task in row.worker.tasks)]
    return any(text.lower() in word.lower() for word in words)


# --- the screen


def drawn(picture: Picture, state: TopState, screen: Screen, *, text: Sequence[str] = ()) -> list[str]:
    """The lines of the screen. text: of a page of logs or stacks."""
    if state.page != "table":
        return _text_page(state, screen, HELP if state.page == "help" else text)
    rows = rows_of(picture, state)
    lines = [*_head(picture, screen), _titles(screen)]
    shown, selected = _window(rows, state, screen)
    for row in shown:
        chosen = screen.height is not None and row.name == selected
        lines.append(_row_line(row, picture, screen, chosen=chosen))
    if screen.height is None:
        return lines
    lines += [""] * (screen.height - _FOOT_LINES - len(lines))
    return [*lines[: screen.height - _FOOT_LINES], _foot(state, screen)]


def _window(rows: list[Row], state: TopState, screen: Screen) -> tuple[list[Row], str]:
    """The rows that fit, around the chosen one, and its name."""
    names = [row.name for row in rows]
    at = names.index(state.selected) if state.selected in names else 0
    first = max(0, min(at - screen.table_rows // 2, len(rows) - screen.table_rows))
    return rows[first : first + screen.table_rows], names[at] if names else ""


def _head(picture: Picture, screen: Screen) -> Iterator[str]:
    status = picture.status
    groups = list(status.groups.values())
    workers = [worker for group in groups for worker in group.workers]
    ready = f"{sum(one.ready_replicas for one in groups)}/{sum(one.desired_replicas for one in groups)} ready"
    busy = f"slots {sum(one.busy for one in groups)}/{sum(one.desired_slots for one in groups)}"
    failed = f"failed {_short(sum(one.failed for one in groups))}"
    memory = megabytes(sum(one.memory_bytes for one in workers)) or "0Mi"
    cpu = f"cpu {sum(picture.cpu.values()):.0f}%" if picture.cpu else "cpu …"
    word = "" if status.up else " is down"
    style = "good" if status.ready and not status.drifted else "wait"
    title = f"fleet {status.fleet}{word}, revision {status.revision}"
    yield _cut([(title, style), (f"  {ready}  {busy}  {failed}  {memory}  {cpu}", "")], screen)
    rate, waits = picture.done.get("", ()), picture.waits.get("", ())
    room = max(0, screen.width - 26)
    yield _cut([("done/s ", "dim"), (sparkline(rate, room, screen), "good"), (f" {_rate(rate)}", "bold")], screen)
    yield _cut([("waits  ", "dim"), (sparkline(waits, room, screen), "wait"), (f" {_wait(waits)}", "bold")], screen)


def _rate(values: Sequence[float]) -> str:
    return f"{values[-1]:.1f} tasks/s" if values else "… tasks/s"


def _wait(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{age(known[-1])} waited" if known else "no waits known"


def sparkline(values: Sequence[float | None], width: int, screen: Screen) -> str:
    """The last of the values, the newest on the right, as high as the largest of them allows; ' ' for none."""
    shown = list(values)[-width:] if width else []
    most = max((value for value in shown if value), default=0.0)
    blocks = _BLOCKS if screen.blocks else _PLAIN_BLOCKS
    return "".join(_block(value, most, blocks) for value in shown).rjust(width)


def _block(value: float | None, most: float, blocks: str) -> str:
    if value is None:
        return blocks[0]
    return blocks[1 + round(value / most * (len(blocks) - 2))] if most else blocks[1]


def _columns(screen: Screen) -> list[_Column]:
    return [column for column in _COLUMNS if screen.width >= column.from_width]


def _titles(screen: Screen) -> str:
    words = [_padded(column, column.title) for column in _columns(screen)]
    return _cut([(" ".join([*words, "RUNS"]), "bold")], screen)


def _row_line(row: Row, picture: Picture, screen: Screen, *, chosen: bool) -> str:
    spans: list[tuple[str, str]] = []
    for column in _columns(screen):
        text, style = _CELLS[column.title](row, picture)
        if column.title == "NAME" and chosen:
            text = f">{text}"
        spans.append((f"{_padded(column, text)} ", style))
    left = max(0, screen.width - sum(len(text) for text, _ in spans))
    spans.append(_runs(row, picture, left, screen))
    line = _cut(spans, screen)
    return f"\033[7m{_cut([(text, '') for text, _ in spans], screen)}\033[0m" if chosen and screen.colour else line


def _padded(column: _Column, text: str) -> str:
    short = text if len(text) <= column.width else f"{text[: column.width - 1]}…"
    return short.rjust(column.width) if column.right else short.ljust(column.width)


def _name(row: Row, _: Picture) -> tuple[str, str]:
    return f"  {row.name}" if row.indent else row.name, group_colour(row.group.name)


def _state(row: Row, _: Picture) -> tuple[str, str]:
    group, worker = row.group, row.worker
    if worker is None:
        word = "paused" if group.paused else f"{group.ready_replicas}/{group.desired_replicas}"
        return word, "good" if group.ready else "wait"
    return ("held" if worker.held else str(worker.trouble or worker.state)), state_style(worker)


def _slots(row: Row, _: Picture) -> tuple[str, str]:
    if row.worker is None:
        return f"{row.group.busy}/{row.group.desired_slots}", ""
    return f"{row.worker.busy}/{row.worker.slots}", ""


def _failed(row: Row, _: Picture) -> tuple[str, str]:
    count = sum(one.failed for one in _workers(row))
    return _short(count), "bad" if count else ""


def _rate_cell(row: Row, picture: Picture) -> tuple[str, str]:
    rate = picture.rates.get(row.name)
    return "…" if rate is None else f"{rate:.1f}" if rate < 1000 else _short(round(rate)), ""


def _cpu_cell(row: Row, picture: Picture) -> tuple[str, str]:
    known = [picture.cpu[one.name] for one in _workers(row) if one.name in picture.cpu]
    return f"{sum(known):.0f}" if known else "…", ""


def _up(row: Row, _: Picture) -> tuple[str, str]:
    return (age(row.worker.uptime_seconds) if row.worker is not None and row.worker.pid else ""), ""


_CELLS: dict[str, Callable[[Row, Picture], tuple[str, str]]] = {
    "NAME": _name,
    "STATE": _state,
    "SLOTS": _slots,
    "DONE": lambda row, _: (_short(sum(one.processed for one in _workers(row))), ""),
    "FAIL": _failed,
    "/S": _rate_cell,
    "CPU%": _cpu_cell,
    "MEM": lambda row, _: (megabytes(sum(one.memory_bytes for one in _workers(row))), ""),
    "UP": _up,
}


def _runs(row: Row, picture: Picture, width: int, screen: Screen) -> tuple[str, str]:
    """Of a replica what runs in it, of a group how many it did per second."""
    worker = row.worker
    if worker is None:
        return sparkline(picture.done.get(row.name, ()), width, screen), group_colour(row.group.name)
    tasks = sorted(worker.tasks, key=lambda task: -task.since_seconds)
    words = [f"{one_line(task.name).rpartition('.')[2]} {age(task.since_seconds)}" for task in tasks[:1]]
    words += [f"+{len(tasks) - 1}"] if len(tasks) > 1 else []
    words += [worker.drift] if worker.drift else []
    words += [one_line(worker.note)] if worker.note else []
    return " ".join(words), "bad" if worker.drift and not tasks else ""


def _short(count: int) -> str:
    """A count in five characters: ``950``, ``12.3k``, ``4.5M``."""
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if count >= size:
            scale = 1_000_000 if unit == "M" else 1_000
            value = count / scale
            return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"
    return str(count)


def _foot(state: TopState, screen: Screen) -> str:
    if state.typing:
        return _cut([("/", "bold"), (f"{one_line(state.filter)}_", "")], screen)
    order = f"{state.order}{' reversed' if state.is_reversed else ''}"
    words = ["q quit", "h help", f"o order: {order}", "t tree", "/ filter", "l logs", "s stacks"]
    words[4] += f": {one_line(state.filter)}" if state.filter else ""
    paused = ["STANDS STILL (p)"] if state.paused else []
    return _cut([("  ".join([*paused, *words]), "dim")], screen)


def _text_page(state: TopState, screen: Screen, text: Sequence[str]) -> list[str]:
    """A page of text, its end at the bottom unless it is moved up."""
    height = max(1, (screen.height or 24) - 2)
    text = [part for line in text for part in _wrapped(line, screen.width)]
    titles = {"help": "keys", "logs": f"logs of {state.selected}", "stacks": f"stacks of {state.selected}"}
    last = max(min(len(text), height), len(text) - state.scroll)
    first = 0 if state.page == "help" else max(0, last - height)
    body = [_cut([(line, "")], screen) for line in text[first:last][:height]]
    body += [""] * (height - len(body))
    foot = "any key goes back" if state.page == "help" else "q back  up, down, PageUp, PageDown  p stand still"
    return [_cut([(titles[state.page], "bold")], screen), *body, _cut([(foot, "dim")], screen)]


def _wrapped(line: str, width: int) -> list[str]:
    return [line[at : at + width] for at in range(0, len(line), width)] or [""]


def _cut(spans: Sequence[tuple[str, str]], screen: Screen) -> str:
    """The spans as one line that is no longer than the screen is wide."""
    left, parts = screen.width, []
    for text, style in spans:
        part = text[:left]
        left -= len(part)
        parts.append(painted(part, style, colour=screen.colour) if part.strip() else part)
    return "".join(parts).rstrip()
