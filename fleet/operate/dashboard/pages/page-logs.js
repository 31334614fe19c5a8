// The logs of all replicas as one, followed.

import { el, moment, show } from "/static/dom.js";
import { fleetPath, get, stream } from "/static/server.js";

const MOST = 2000;

export async function begin(content) {
  const chosen = new URLSearchParams(location.search).get("name") ?? "";
  const query = chosen ? `name=${encodeURIComponent(chosen)}` : "";
  const found = await get(fleetPath(`logs?last=1&${query}`));
  const groups = [...new Set(found.replicas.map((name) => name.slice(0, name.lastIndexOf("."))))].sort();
  const options = ["", ...groups, ...found.replicas].map((name) => el("option", { value: name, selected: name === chosen }, name || "all replicas"));
  const choice = el("select", { id: "name", onchange: () => location.assign(choice.value ? `?name=${encodeURIComponent(choice.value)}` : "?") }, options);
  const filter = el("input", { type: "search", id: "filter", autocomplete: "off" });
  const follow = el("input", { type: "checkbox", id: "follow", checked: true });
  const lines = el("ol", { class: "log", tabindex: "0", "aria-label": "Log lines" });
  content.append(
    el(
      "p",
      { class: "choices" },
      el("span", {}, el("label", { for: "name" }, "Logs of"), " ", choice),
      el("span", {}, el("label", { for: "filter" }, "Only lines with"), " ", filter),
      el("span", {}, follow, " ", el("label", { for: "follow" }, "Scroll to the newest")),
    ),
    lines,
  );
  const matches = (node) => node.textContent.toLowerCase().includes(filter.value.toLowerCase());
  filter.addEventListener("input", () => {
    for (const node of lines.children) node.hidden = !matches(node);
  });
  const add = (fresh) => {
    const nodes = fresh.map(line);
    for (const node of nodes) node.hidden = !matches(node);
    lines.append(...nodes);
    while (lines.children.length > MOST) lines.firstChild.remove();
    if (follow.checked) lines.scrollTop = lines.scrollHeight;
  };
  stream(fleetPath(`logs/stream?${query}`), (update) => {
    if (update.whole) lines.replaceChildren();
    if (update.leftOut) lines.append(el("li", { class: "quiet" }, `${update.leftOut} lines were left out`));
    add(update.lines);
  });
}

const line = (one) => el("li", {}, el("b", {}, one.replica), " ", el("span", { class: "hidden" }, moment(one.at)), el("span", { class: "text" }, one.text));
