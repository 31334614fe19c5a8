// Starts the script of the page that is shown.

import { el } from "/static/dom.js";
import { post } from "/static/server.js";

const pages = ["fleets", "overview", "tasks", "queues", "logs", "events", "history", "rollout", "explain", "replica"];
const page = document.body.dataset.page;
const content = document.getElementById("content");

document.getElementById("leave")?.addEventListener("click", async () => {
  await post("/api/logout", {});
  location.assign("/login");
});

if (pages.includes(page)) {
  try {
    const script = await import(`/static/page-${page}.js`);
    await script.begin(content);
  } catch (error) {
    content.append(el("p", { class: "problem", role: "alert" }, error.message, error.hint ? ` (${error.hint})` : ""));
  }
}
