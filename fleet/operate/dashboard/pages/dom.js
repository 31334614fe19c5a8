// Builds elements. Text is only ever set as text: what a task or a log line is called cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "onchange" || name === "oninput" || name === "onsubmit" || name === "ontoggle") {
      node.addEventListener(name.slice(2), value);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      node.append(child instanceof Node ? child : String(child));
    }
  }
  return node;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Puts new children in place of the old ones, but leaves alone what is the same, so that focus and selection stay.
export function show(parent, ...children) {
  const wanted = children.flat().filter((one) => one !== null && one !== undefined && one !== false);
  const nodes = wanted.map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));
  nodes.forEach((node, at) => {
    if (parent.childNodes[at] !== node) parent.insertBefore(node, parent.childNodes[at] ?? null);
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

export function table(caption, head, rows, { className = "" } = {}) {
  const cell = (one, tag, extra) => {
    const isNumber = typeof one === "number";
    return el(tag, { ...extra, class: isNumber ? "number" : null }, one);
  };
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      { class: className },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((title) => el("th", { scope: "col" }, title)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((one, at) => (at === 0 ? cell(one, "th", { scope: "row" }) : cell(one, "td")))))),
    ),
  );
}

export function age(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const value = Math.max(0, seconds);
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

export function memory(bytes) {
  if (!bytes) return "";
  return bytes < 1 << 30 ? `${Math.round(bytes / (1 << 20))} MiB` : `${(bytes / (1 << 30)).toFixed(1)} GiB`;
}

export function moment(seconds) {
  if (!seconds) return "";
  const at = new Date(seconds * 1000);
  const two = (one) => String(one).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

// A word with a sign of its own, so that no meaning hangs on the colour alone.
const SIGNS = { good: "\u2713", bad: "\u2717", wait: "\u2026", held: "\u2016" };

export const sign = (kind, text) =>
  el("span", { class: `sign ${kind}` }, el("span", { "aria-hidden": "true" }, SIGNS[kind]), ` ${text}`);

export function replicaSign(row) {
  if (row.trouble) return sign("bad", row.trouble);
  if (row.held) return sign("held", "held");
  if (row.state === "failed" || row.state === "unknown") return sign("bad", row.state);
  return sign(row.ready ? "good" : "wait", row.state);
}

export function groupSign(group) {
  if (group.paused) return sign("held", "paused");
  const text = `${group.ready} of ${group.desired} ready`;
  return sign(group.ready >= group.desired ? "good" : "wait", text);
}

export function fleetSign(head) {
  if (head.problem) return sign("bad", head.problem);
  if (!head.up) return sign("wait", "down");
  if (head.troubled) return sign("bad", `${head.troubled} in trouble`);
  if (head.drifted) return sign("wait", "drifted");
  return sign(head.ready ? "good" : "wait", head.ready ? "ready" : "not ready");
}

// "thumbs.10" after "thumbs.9".
export function byName(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}
