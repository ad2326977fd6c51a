"""The page's script. Scripts inside gr.HTML do not run, so it is the `js` of a load event, on every Gradio.

It asks for news while the tab is shown, keeps times up to date, shows values under the pointer, asks once before going
back to a checkpoint, warns in the page's title, and defuses two habits of FluxGym's own script: scrolling the window
to the bottom every half second, and overwriting the train script after any input event that reaches `document`.
"""

from __future__ import annotations

CHOSEN_CHECKPOINT = "(run, _) => [run, window.fluxgymWatchdog ? window.fluxgymWatchdog.chosen : '']"
"""Puts the checkpoint whose button was pressed in the place of the hidden text box."""

PAGE_SCRIPT = r"""
() => {
  if (window.fluxgymWatchdog) return;
  const own = window.fluxgymWatchdog = {chosen: "", shown: false};
  const LOOK_MS = 2000, LOOK_IN_BACKGROUND_MS = 10000, CHECK_MS = 200;
  const byId = (id) => document.getElementById(id);
  const within = (node) => node instanceof Element && node.closest("#watchdog-tab") !== null;

  // Asking for news: only while the tab is shown.
  let lookedAt = 0;
  const look = () => {
    const button = byId("watchdog-look");
    if (button) { lookedAt = Date.now(); button.click(); }
  };
  const soon = () => { lookedAt = Math.min(lookedAt, Date.now() - LOOK_MS + 250); };

  // FluxGym's autoscroll is taken away while the tab is shown, and given back if it was us who took it.
  let took = false;
  const scrollSwitch = () => byId("autoscroll");
  const enter = () => {
    const button = scrollSwitch();
    if (button && button.classList.contains("on")) { button.classList.remove("on"); took = true; }
    look();
  };
  const leave = () => {
    const button = scrollSwitch();
    if (took && button) button.classList.add("on");
    took = false;
    unpoint();
  };
  const check = () => {
    const tab = byId("watchdog-tab");
    const shown = tab !== null && tab.offsetParent !== null;
    if (shown !== own.shown) { own.shown = shown; if (shown) enter(); else leave(); }
    const pause = document.hidden ? LOOK_IN_BACKGROUND_MS : LOOK_MS;
    if (shown && Date.now() - lookedAt >= pause) look();
  };
  setInterval(check, CHECK_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
  document.addEventListener("click", (event) => {
    if (event.isTrusted && event.target === scrollSwitch()) took = false;
    setTimeout(check, 0);
    if (within(event.target) && event.target.id !== "watchdog-look") soon();
  }, true);

  // Input events of the tab end at the body: Gradio listens below it, FluxGym's refresh at the document above it.
  document.body.addEventListener("input", (event) => { if (within(event.target)) event.stopPropagation(); });

  // Times in the reader's own time zone, ages that grow.
  let ahead = 0;
  const two = (n) => String(n).padStart(2, "0");
  const duration = (s) => {
    s = Math.max(0, Math.round(s));
    if (s < 100) return s + " s";
    let m = Math.round(s / 60);
    if (m < 100) return m + " min";
    let h = Math.floor(m / 60); m %= 60;
    if (h < 48) return h + " h " + two(m) + " min";
    return Math.floor(h / 24) + " d " + (h % 24) + " h";
  };
  const clock = (at, seconds) => {
    const date = new Date(at * 1000), far = Math.abs(Date.now() / 1000 - at) > 72000;
    const day = far ? date.toLocaleDateString([], {day: "numeric", month: "short"}) + " " : "";
    return day + two(date.getHours()) + ":" + two(date.getMinutes()) + (seconds ? ":" + two(date.getSeconds()) : "");
  };
  const retime = (tab) => {
    const now = Date.now() / 1000 + ahead;
    for (const time of tab.querySelectorAll("time[data-at]")) {
      const at = Number(time.dataset.at), form = time.dataset.form;
      const text = form === "ago" ? duration(now - at) + " ago" : form === "until" ? duration(at - now) : clock(at);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // What Gradio replaces keeps what its reader did to it: unfolded evidence, a log scrolled back.
  const open = new Set();
  let logScroll = 0, serverNow = "";
  const settle = () => {
    const tab = byId("watchdog-tab");
    if (!tab) return;
    const card = tab.querySelector(".wd-card[data-now]");
    if (card && card.dataset.now !== serverNow) {
      serverNow = card.dataset.now;
      ahead = Number(serverNow) - Date.now() / 1000;
    }
    retime(tab);
    for (const details of tab.querySelectorAll("details[data-key]")) {
      if (open.has(details.dataset.key) && !details.open) details.open = true;
    }
    const log = tab.querySelector(".wd-log");
    if (log && logScroll && log.scrollTop === 0) log.scrollTop = logScroll;
    warn(card);
  };
  let settling = false;
  new MutationObserver((changes) => {
    if (settling || !changes.some((change) => within(change.target))) return;
    settling = true;
    queueMicrotask(() => { settle(); settling = false; });
  }).observe(document.body, {childList: true, subtree: true});
  document.addEventListener("toggle", (event) => {
    if (!within(event.target) || !event.target.dataset.key) return;
    if (event.target.open) open.add(event.target.dataset.key); else open.delete(event.target.dataset.key);
  }, true);
  document.addEventListener("scroll", (event) => {
    const scrolled = event.target;
    if (scrolled instanceof Element && scrolled.classList.contains("wd-log")) logScroll = scrolled.scrollTop;
  }, true);
  setInterval(() => { const tab = byId("watchdog-tab"); if (own.shown && tab) retime(tab); }, 1000);

  // A run that needs a look says so in the page's title.
  let title = null;
  const warn = (card) => {
    const bad = card && card.dataset.tone === "bad";
    if (bad) {
      if (title === null) title = document.title;
      document.title = "\u26a0 " + card.dataset.name + ": " + card.dataset.label;
    } else if (title !== null) {
      document.title = title;
      title = null;
    }
  };

  // Going back to a checkpoint is asked once, on its own button.
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("button[data-checkpoint]") : null;
    if (!button || !within(button)) return;
    if (!button.classList.contains("wd-sure")) {
      const text = button.textContent;
      button.textContent = button.dataset.sure;
      button.classList.add("wd-sure");
      setTimeout(() => { button.textContent = text; button.classList.remove("wd-sure"); }, 6000);
      return;
    }
    own.chosen = button.dataset.checkpoint;
    button.disabled = true;
    byId("watchdog-resume-from").click();
  });

  // Values under the pointer.
  let tip = null;
  const unpoint = () => { if (tip) tip.hidden = true; };
  const number = (v) => Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toPrecision(3);
  const valueAt = (path, x) => {
    for (const piece of (path.getAttribute("d") || "").split("M").slice(1)) {
      const [head, tail] = piece.split("l");
      let [px, py] = head.match(/-?\d+/g).map(Number);
      if (x < px - 4) continue;
      const steps = ((tail || "").match(/-?\d+/g) || []).map(Number);
      for (let i = 0; i + 1 < steps.length; i += 2) {
        const nx = px + steps[i], ny = py + steps[i + 1];
        if (x <= nx) {
          if (nx - x <= 3) return ny;
          return x - px <= 3 || nx === px ? py : py + (ny - py) * (x - px) / (nx - px);
        }
        px = nx; py = ny;
      }
      if (x - px <= 4) return py;
    }
    return null;
  };
  document.addEventListener("pointermove", (event) => {
    const svg = event.target instanceof Element ? event.target.closest("#watchdog-tab svg.wd-plot") : null;
    if (!svg) return unpoint();
    if (!tip) {
      tip = document.createElement("div");
      tip.id = "watchdog-tip";
      tip.append(document.createElement("i"), document.createElement("div"));
      document.body.append(tip);
    }
    const box = svg.getBoundingClientRect(), figure = svg.closest("figure").dataset;
    const wide = svg.viewBox.baseVal.width, deep = svg.viewBox.baseVal.height - 4;  // 4: the margin for thick lines
    const share = (event.clientX - box.left) / box.width, x = share * wide;
    const from = Number(figure.from), low = Number(figure.low), high = Number(figure.high);
    const lines = [clock(from + share * (Number(figure.to) - from), true)];
    const paths = [...svg.querySelectorAll("path[data-name]")];
    for (const path of paths) {
      const y = valueAt(path, x);
      const value = y === null ? "–" : number(low + (high - low) * (1 - y / deep)) + " " + figure.unit;
      lines.push(paths.length > 1 ? path.dataset.name + ": " + value : value);
    }
    const use = svg.querySelector("use"), marks = use && document.querySelector(use.getAttribute("href"));
    for (const mark of marks ? marks.children : []) {
      if (Math.abs(Number(mark.dataset.x) - x) * box.width / wide <= 5) lines.push(mark.textContent);
    }
    const [hair, text] = tip.children;
    text.textContent = lines.join("\n");
    tip.hidden = false;
    hair.style.left = event.clientX + "px";
    hair.style.top = box.top + "px";
    hair.style.height = box.height + "px";
    const right = event.clientX + 14 + text.offsetWidth > document.documentElement.clientWidth;
    text.style.left = Math.max(4, right ? event.clientX - 14 - text.offsetWidth : event.clientX + 14) + "px";
    text.style.top = box.top + 6 + "px";
  }, {passive: true});
  document.addEventListener("scroll", unpoint, {passive: true});
  check();
}
"""
