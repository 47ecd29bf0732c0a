// Brings the page up to date every few seconds without losing the reader's place. Without it the page reloads itself.
"use strict";
(() => {
  const EVERY = 5000, SOON = 1500;
  const controls = document.getElementById("controls");
  const button = document.createElement("button");
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  button.type = "button";
  controls.replaceChildren(said, button);
  let paused = false, timer = 0;

  const name = () => { button.textContent = paused ? "go on" : "pause"; };
  const again = () => {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(look, document.querySelector("[data-soon]") ? SOON : EVERY);
  };
  const place = (element) => element && (element.id ? "#" + CSS.escape(element.id)
    : element.getAttribute("href") ? `a[href="${CSS.escape(element.getAttribute("href"))}"]`
    : element.tagName === "SUMMARY" ? "#" + CSS.escape(element.parentElement.id) + " > summary" : "");

  const take = (fresh) => {
    for (const old of document.querySelectorAll("[data-live]")) {
      put(old, fresh.querySelector(`[data-live="${old.dataset.live}"]`));
    }
  };
  const put = (old, fresh) => {
    if (!fresh || old.innerHTML === fresh.innerHTML) return;
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    const where = place(active);
    const open = [...old.querySelectorAll("details[open]")].map((each) => each.id);
    old.innerHTML = fresh.innerHTML;
    for (const id of open) { const found = document.getElementById(id); if (found) found.open = true; }
    const found = where && old.querySelector(where);
    if (found) found.focus({ preventScroll: true });
  };
  async function look() {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(20000) });
      if (!answer.ok) throw new Error(answer.status);
      take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      document.body.classList.remove("old");
      said.textContent = "";
    } catch {
      document.body.classList.add("old");
      if (!said.textContent) said.textContent = "no answer since " + new Date().toISOString().slice(11, 19) + " UTC: what you see is old";
    }
    again();
  }
  button.addEventListener("click", () => { paused = !paused; name(); again(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) look(); });
  name();
  again();
})();
