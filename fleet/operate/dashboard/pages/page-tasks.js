// What runs now: oldest first, with its age and when its time is over.

import { age, el, setText, sign, show } from "/static/dom.js";
import { followFleet } from "/static/server.js";

const MOST = 500;
const fleet = document.body.dataset.fleet;
const rows = new Map();

export function begin(content) {
  const count = el("p", { role: "status" });
  const filter = el("input", { type: "search", id: "filter", autocomplete: "off" });
  const body = el("tbody", {});
  const titles = ["Task", "Group", "Replica", "Age", "Time left", "Id"];
  const list = el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Running tasks" },
    el("table", {}, el("caption", {}, "Running tasks, the oldest first"), el("thead", {}, el("tr", {}, titles.map((one) => el("th", { scope: "col" }, one)))), body),
  );
  content.append(el("p", {}, el("label", { for: "filter" }, "Only tasks, groups or replicas with"), " ", filter), count, list);
  let last = null;
  const again = () => last && draw(count, body, filter.value.toLowerCase(), ...last);
  filter.addEventListener("input", again);
  followFleet((picture, now) => {
    last = [picture, now];
    again();
  });
}

function draw(count, body, wanted, picture, now) {
  const found = [];
  for (const [replica, row] of Object.entries(picture.replicas)) {
    for (const [id, name, since, until] of row.tasks) found.push({ key: `${replica} ${id} ${since}`, id, name, since, until, replica, group: row.group });
  }
  const matching = found.filter((one) => [one.name, one.replica, one.id].some((text) => text.toLowerCase().includes(wanted)));
  matching.sort((one, other) => one.since - other.since);
  const shown = matching.slice(0, MOST);
  const keys = new Set(shown.map((one) => one.key));
  for (const key of rows.keys()) if (!keys.has(key)) rows.delete(key);
  for (const one of shown) {
    if (!rows.has(one.key)) rows.set(one.key, made(one));
    const { ageCell, leftCell } = rows.get(one.key);
    setText(ageCell, age(now - one.since));
    const late = one.until && now > one.until;
    const text = one.until ? (late ? `over by ${age(now - one.until)}` : age(one.until - now)) : "no limit";
    if (late) show(leftCell, sign("bad", text));
    else setText(leftCell, text);
  }
  show(body, shown.map((one) => rows.get(one.key).node));
  const more = matching.length > shown.length ? `, the oldest ${shown.length} are shown` : "";
  setText(count, `${matching.length} of ${found.length} running tasks${more}`);
}

function made(one) {
  const ageCell = el("td", { class: "number" });
  const leftCell = el("td", { class: "number" });
  const link = el("a", { href: `/fleets/${encodeURIComponent(fleet)}/replicas/${encodeURIComponent(one.replica)}` }, one.replica);
  const node = el("tr", {}, el("th", { scope: "row" }, one.name), el("td", {}, one.group), el("td", {}, link), ageCell, leftCell, el("td", {}, el("code", {}, one.id)));
  return { node, ageCell, leftCell };
}
