// One fleet: its groups with the last hour of each, and their replicas.

import { buttons } from "/static/act.js";
import { hourLegend, hourPicture } from "/static/chart.js";
import { age, byName, el, fleetSign, groupSign, memory, replicaSign, setText, show } from "/static/dom.js";
import { fleetPath, followFleet, get } from "/static/server.js";

const MOST_POINTS = 360;
const fleet = document.body.dataset.fleet;
const groups = new Map();
let hour = {};
let everySeconds = 10;

export async function begin(content) {
  const head = el("div", { class: "facts" });
  const total = el("div", {});
  const list = el("div", {});
  const system = el("p", { class: "quiet" });
  content.append(head, hourLegend(), total, list, system);
  const found = await get(fleetPath("hour"));
  hour = found.groups;
  everySeconds = found.everySeconds ?? everySeconds;
  followFleet((picture, now) => {
    draw(head, list, system, picture, now);
    drawTotal(total, picture, now);
  });
}

let shownTotal = "";

// All groups together against the budget.
function drawTotal(node, picture, now) {
  if (picture.head.budget === null || picture.head.budget === undefined) return show(node);
  const sums = new Map();
  for (const name of groups.keys()) {
    for (const [at, busy, has] of hour[name] ?? []) {
      const key = Math.round(at / everySeconds);
      const before = sums.get(key) ?? [at, 0, 0];
      sums.set(key, [before[0], before[1] + busy, before[2] + has]);
    }
  }
  const points = [...sums.values()].sort((one, other) => one[0] - other[0]);
  const text = JSON.stringify([points.at(-1), points.length, picture.head.budget]);
  if (text === shownTotal) return;
  shownTotal = text;
  show(node, el("h2", {}, "All groups"), hourPicture("All groups", points, now, { budget: picture.head.budget }));
}

function draw(head, list, system, picture, now) {
  drawHead(head, picture.head, now);
  const own = Object.keys(picture.groups).filter((name) => !picture.groups[name].system).sort();
  for (const name of groups.keys()) if (!own.includes(name)) groups.delete(name);
  for (const name of own) if (!groups.has(name)) groups.set(name, new Group(name, picture.groups[name]));
  const replicas = {};
  for (const [name, row] of Object.entries(picture.replicas)) (replicas[row.group] ??= {})[name] = row;
  for (const name of own) groups.get(name).draw(picture.groups[name], replicas[name] ?? {}, now);
  const sections = own.map((name) => groups.get(name).section);
  show(list, sections.length ? sections : el("p", {}, picture.head.up ? "No group." : "Nothing runs. `fleet apply` brings it up."));
  const programs = Object.entries(picture.replicas).filter(([, row]) => picture.groups[row.group]?.system);
  setText(system, programs.length ? `Programs of fleet's own: ${programs.map(([name, row]) => `${name} ${row.state}`).sort().join(", ")}` : "");
}

let drawn = "";

function drawHead(node, head, now) {
  const text = JSON.stringify(head) + Math.round(now / 5);
  if (text === drawn) return;
  drawn = text;
  const facts = [
    ["State", fleetSign(head)],
    ["Revision", head.good && head.good !== head.revision ? `${head.revision} (last good ${head.good})` : head.revision],
    ["Replicas ready", head.replicas ? `${head.replicas.ready} of ${head.replicas.desired}` : ""],
    ["Slots busy", head.slots ? `${head.slots.busy} of ${head.slots.desired}` : ""],
    ["Budget", head.budget === null ? "none" : `${head.budget} slots`],
    ["Controller", head.controller ? `looked ${age(now - head.controller.at)} ago${head.controller.squeezed ? ", slots are short" : ""}` : "no decision"],
  ];
  if (head.controller?.note) facts.push(["Note", head.controller.note]);
  if (head.strays) facts.push(["Stray processes", head.strays]);
  show(node, el("dl", {}, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
}

class Group {
  constructor(name, group) {
    this.name = name;
    this.rows = new Map();
    this.state = el("span", {});
    this.facts = el("p", { class: "quiet" });
    this.picture = el("div", {});
    this.body = el("tbody", {});
    this.count = el("summary", {}, "Replicas");
    const titles = ["Replica", "State", "Slots busy", "Done", "Failed", "Memory", "Up for", "Runs"];
    const caption = `Replicas of ${name}`;
    this.details = el(
      "details",
      { ontoggle: () => this.drawRows() },
      this.count,
      el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
        el("table", {}, el("caption", { class: "hidden" }, caption), el("thead", {}, el("tr", {}, titles.map((one) => el("th", { scope: "col" }, one)))), this.body),
      ),
    );
    const actions = buttons(name, ["scale", "restart", "drain", "pause", "resume"], { replicas: group.desired });
    this.section = el(
      "section",
      { class: "group", "aria-labelledby": `group-${name}`, "data-group": name },
      el("h2", { id: `group-${name}` }, name, " ", this.state),
      this.facts,
      this.picture,
      actions.length ? el("p", { class: "choices" }, actions) : null,
      this.details,
    );
  }

  draw(group, replicas, now) {
    this.now = now;
    this.replicas = replicas;
    const values = Object.values(replicas).filter((row) => row.pid !== null);
    const sum = (key) => values.reduce((total, row) => total + row[key], 0);
    const signed = groupSign(group);
    if (this.state.textContent !== signed.textContent) show(this.state, signed);
    const words = [group.pool, `${sum("busy")} of ${sum("slots")} slots busy`, `${sum("processed")} done`, `${sum("failed")} failed`];
    if (group.scaling) words.push(group.scaling === "replicas" ? "fixed" : group.scaling);
    if (group.why ?? group.reason) words.push(group.why ?? group.reason);
    if (group.missing.length) words.push(`missing: ${group.missing.join(", ")}`);
    setText(this.facts, words.join(" \u00b7 "));
    const count = Object.keys(replicas).length;
    setText(this.count, count === 1 ? "1 replica" : `${count} replicas`);
    this.drawPicture(group, [now, sum("busy"), sum("slots"), group.slots, group.need, group.gets]);
    this.drawRows();
  }

  drawPicture(group, point) {
    const points = (hour[this.name] ??= []);
    const last = points.at(-1);
    if (!last || point[0] - last[0] >= everySeconds - 0.5) {
      points.push(point);
      if (points.length > MOST_POINTS) points.shift();
    }
    const shown = JSON.stringify(point.slice(1)) + points.length;
    if (shown === this.shownPicture) return;
    this.shownPicture = shown;
    show(this.picture, hourPicture(this.name, [...points, point], point[0]));
  }

  drawRows() {
    if (!this.details.open) return;
    const names = Object.keys(this.replicas).sort(byName);
    for (const name of this.rows.keys()) if (!(name in this.replicas)) this.rows.delete(name);
    for (const name of names) {
      if (!this.rows.has(name)) this.rows.set(name, row(name));
      fillRow(this.rows.get(name), this.replicas[name], this.now);
    }
    show(this.body, names.map((name) => this.rows.get(name).node));
  }
}

function row(name) {
  const link = el("a", { href: `/fleets/${encodeURIComponent(fleet)}/replicas/${encodeURIComponent(name)}` }, name);
  const cells = Array.from({ length: 7 }, (_, at) => el("td", { class: at && at < 6 ? "number" : null }));
  return { cells, node: el("tr", {}, el("th", { scope: "row" }, link), cells) };
}

function fillRow({ cells }, one, now) {
  const [state, ...rest] = cells;
  const signed = replicaSign(one);
  const drift = one.drift ? ` ${one.drift}` : "";
  if (state.textContent !== signed.textContent + drift) show(state, signed, drift);
  state.title = one.note;
  const oldest = [...one.tasks].sort((a, b) => a[2] - b[2]);
  const runs = oldest.length ? `${oldest[0][1]} ${age(now - oldest[0][2])}${oldest.length > 1 ? ` and ${oldest.length - 1} more` : ""}` : one.note;
  const texts = [`${one.busy} of ${one.slots}`, one.processed, one.failed, memory(one.memory), one.startedAt ? age(now - one.startedAt) : "", runs];
  texts.forEach((text, at) => setText(rest[at], text));
}
