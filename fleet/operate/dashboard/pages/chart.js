// Pictures as SVG: slots of a group over the last hour, and who has, needs and waits now.

import { el, svg } from "/static/dom.js";

const WIDTH = 600;
const HEIGHT = 120;
const PAD = 4;

function path(points, x, y, closed) {
  const known = points.filter(([, value]) => value !== null && value !== undefined);
  if (!known.length) return "";
  let text = "";
  let last = null;
  for (const [at, value] of known) {
    if (last !== null) text += `H${x(at).toFixed(1)}`;
    text += `${text ? "V" : `M${x(at).toFixed(1)},`}${y(value).toFixed(1)}`;
    last = at;
  }
  if (!closed) return text;
  return `${text}V${y(0).toFixed(1)}H${x(known[0][0]).toFixed(1)}Z`;
}

const least = (values) => values.reduce((one, other) => Math.min(one, other), Infinity);
const most = (values) => values.reduce((one, other) => Math.max(one, other), 1);

// points: [at, busy, has, slots, need, gets], as the server has them. budget: the target instead of slots and gets.
export function hourPicture(name, points, now, { budget = null } = {}) {
  if (budget !== null) points = points.map(([at, busy, has]) => [at, busy, has, budget, null, null]);
  const latest = points.at(-1) ?? [now, 0, 0, 0, null, null];
  const [, busy, has, wanted, need, gets] = latest;
  const top = most(points.flatMap((one) => one.slice(1).filter((value) => value !== null)));
  const from = Math.max(now - 3600, Math.min(least(points.map((one) => one[0])), now - 60));
  const x = (at) => PAD + ((Math.max(at, from) - from) / Math.max(1, now - from)) * (WIDTH - 2 * PAD);
  const y = (value) => HEIGHT - PAD - (value / top) * (HEIGHT - 2 * PAD);
  const line = (column) => points.map((one) => [one[0], one[column]]);
  const minutes = Math.max(1, Math.round((now - from) / 60));
  const target = gets ?? wanted;
  const words =
    `${busy} busy of ${has} slots, ${budget === null ? "target" : "budget"} ${target}` +
    (need === null || need === undefined ? "" : `, needs ${need}`) +
    `; most ${top} in the last ${minutes} min`;
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}: ${words}`, class: "hour", preserveAspectRatio: "none" },
    svg("path", { d: path(line(1), x, y, true), class: "busy-area" }),
    svg("path", { d: path(line(2), x, y, false), class: "has-line" }),
    svg("path", { d: path(points.map((one) => [one[0], one[5] ?? one[3]]), x, y, false), class: "target-line" }),
    svg("path", { d: path(line(4), x, y, false), class: "need-line" }),
  );
  return el("figure", { class: "hour" }, picture, el("figcaption", {}, words));
}

export const hourLegend = () =>
  el(
    "ul",
    { class: "legend" },
    el("li", {}, el("span", { class: "key busy-key" }), "busy (filled)"),
    el("li", {}, el("span", { class: "key has-key" }), "has (solid)"),
    el("li", {}, el("span", { class: "key target-key" }), "target (dashed)"),
    el("li", {}, el("span", { class: "key need-key" }), "needs (dotted)"),
  );

// Who has, needs and waits: one bar per group, to one scale. rows: {name, has, needs, wants}, null where not known.
export function slotsPicture(rows, budget) {
  const has = rows.reduce((sum, row) => sum + row.has, 0);
  const scale = most([...rows.flatMap((row) => [row.has, row.wants ?? 0]), budget ?? 0, budget === null ? 0 : has]);
  const bars = rows.map((row) => {
    const needs = row.needs === null ? row.has : Math.min(row.has, row.needs);
    const waits = Math.max(0, (row.wants ?? 0) - row.has);
    const words = row.needs === null ? `has ${row.has}` : `has ${row.has}, needs ${row.needs}, wants ${row.wants}`;
    return bar(row.name, words, needs, row.has - needs, waits, scale);
  });
  if (budget !== null && budget !== undefined) {
    bars.push(bar("budget", `${has} of ${budget} given out`, has, 0, 0, scale));
  }
  return el("div", { class: "bars" }, bars, legend());
}

function bar(name, words, used, spare, waits, scale) {
  const unit = WIDTH / scale;
  const part = (from, count, kind) => svg("rect", { x: from * unit, y: 1, width: Math.max(0, count * unit), height: 16, class: kind });
  return el(
    "figure",
    { class: "bar" },
    el("figcaption", {}, el("b", {}, name), ` ${words}`),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} 18`, role: "img", "aria-label": `${name}: ${words}`, preserveAspectRatio: "none" },
      part(0, used, "bar-used"),
      part(used, spare, "bar-spare"),
      part(used + spare, waits, "bar-waits"),
    ),
  );
}

const legend = () =>
  el(
    "ul",
    { class: "legend" },
    el("li", {}, el("span", { class: "key used-key" }), "has and needs (full)"),
    el("li", {}, el("span", { class: "key spare-key" }), "has to spare (light)"),
    el("li", {}, el("span", { class: "key waits-key" }), "wants and has not (outlined)"),
  );
