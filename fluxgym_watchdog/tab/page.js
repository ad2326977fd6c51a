() => {
  // What the tab does in the page: it asks for news while the tab is shown, keeps times up to date, shows values under
  // the pointer, asks once before what cannot be undone, tells when a run needs a look, and defuses two habits of
  // FluxGym's own script: scrolling the window to the bottom every half second, and overwriting the train script after
  // any input event that reaches `document`.
  if (window.fluxgymWatchdog) return;
  const own = window.fluxgymWatchdog = {wishes: [], shown: false, unanswered: 0};
  const LOOK_MS = 2000, LOOK_IN_BACKGROUND_MS = 10000, CHECK_MS = 200, SURE_MS = 60000;
  const SILENT_S = 30, SILENT_LOOKS = 3, FRESH_MS = 5000;
  const CARD = ".wd-card[data-name]";
  const byId = (id) => document.getElementById(id);
  const within = (node) => node instanceof Element && node.closest("#watchdog-tab") !== null;

  // Asking for news: only while the tab is shown; else slowly, and only where the reader wants to be alerted.
  let lookedAt = 0, unansweredSince = 0, answeredAt = "", heardAt = Date.now(), another = false;
  const look = async () => {
    const button = byId("watchdog-look");
    if (!button || another) return;
    lookedAt = Date.now();
    if (!own.unanswered) unansweredSince = lookedAt;
    own.unanswered += 1;
    const trusted = own.unanswered === 1 && lookedAt - heardAt < FRESH_MS;
    if (trusted || await sameServer()) button.click();
  };
  // A page that outlives its server may meet another one (an update, us uninstalled), in which the number of our
  // function is that of another: Gradio would call it, also by a click that it has kept waiting. So where no answer was
  // heard a moment ago, or one is waited for, nothing is clicked before the server has said what it can do.
  const abilities = (config) => JSON.stringify((config.dependencies || []).map((each) => [each.inputs, each.outputs]));
  const sameServer = async () => {
    const page = window.gradio_config;
    if (!page) return true;
    try {
      const answer = await fetch((page.root || "") + "/config");
      if (!answer.ok) return false;
      const server = await answer.json();
      another = abilities(server) !== abilities(page);
      return !another;
    } catch { return false; }  // it is not there yet
  };
  const soon = () => { lookedAt = Math.min(lookedAt, Date.now() - LOOK_MS + 250); };

  // A page whose server has ended or hangs must not go on saying that all is well.
  const hear = (tab) => {
    const answer = tab.querySelector("#watchdog-alive [data-answered]");
    if (answer && answer.dataset.answered !== answeredAt) {
      answeredAt = answer.dataset.answered;
      own.unanswered = 0;
      heardAt = Date.now();
      ahead = Number(answeredAt) - Date.now() / 1000;
    }
    const silent_s = own.unanswered < SILENT_LOOKS ? 0 : Math.floor((Date.now() - unansweredSince) / 10000) * 10;
    const silent = another || silent_s >= SILENT_S;
    let says = byId("watchdog-silent");
    tab.classList.toggle("wd-stale", silent);
    tab.inert = another;
    if (!silent) { if (says) says.remove(); return; }
    if (!says) {
      says = document.createElement("p");
      says.id = "watchdog-silent";
      says.className = "wd wd-box wd-card wd-tone-bad";
      says.setAttribute("role", "alert");
      byId("watchdog-card").before(says);
    }
    const text = another ? "FluxGym was started anew and is not the same. Reload this page."
      : "No answer from FluxGym for " + duration(silent_s) + ". What is shown below is from before.";
    if (says.textContent !== text) says.textContent = text;
  };

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
    if (shown !== own.shown) { own.shown = shown; if (shown) enter(); else leave(); remember(shown); }
    makeParts();
    const pause = document.hidden || !shown ? LOOK_IN_BACKGROUND_MS : LOOK_MS;
    if ((shown || alerting()) && Date.now() - lookedAt >= pause) look();
  };

  // Gradio makes a tab's parts when it is first opened: after a reload there would be nothing to look with. So whoever
  // was in the tab is there again, and for whoever wants to be alerted it is opened for a moment.
  const SHOWN = "fluxgym-watchdog-shown";
  const remember = (shown) => { try { sessionStorage.setItem(SHOWN, shown ? "yes" : ""); } catch { /* not kept */ } };
  const wasShown = () => { try { return sessionStorage.getItem(SHOWN) === "yes"; } catch { return false; } };
  let opened = false, back = null, again = wasShown();
  const makeParts = () => {
    const button = byId("watchdog-tab-button");
    if (back && byId("watchdog-look")) { back.click(); back = null; }
    if (!button || opened || !(again || (alerting() && !byId("watchdog-look")))) return;
    opened = true;
    const selected = document.querySelector("button[role=tab][aria-selected=true]");
    if (!again && selected !== button) back = selected;
    button.click();
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
  let ahead = 0;  // the server's clock before the reader's, in seconds
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
    const date = new Date(at * 1000), today = date.toDateString() === new Date().toDateString();
    const day = today ? "" : date.toLocaleDateString([], {day: "numeric", month: "short"}) + " ";
    return day + two(date.getHours()) + ":" + two(date.getMinutes()) + (seconds ? ":" + two(date.getSeconds()) : "");
  };
  const retime = (tab) => {
    const now = Date.now() / 1000 + ahead;
    for (const time of tab.querySelectorAll("time[data-at]")) {
      const at = Number(time.dataset.at), form = time.dataset.form;
      if (form === "clock" && !time.title) time.title = clock(at, true);
      const text = form === "ago" ? duration(now - at) + " ago" : form === "until" ? duration(at - now) : clock(at);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // What Gradio replaces keeps what its reader did to it: what is unfolded, a log scrolled back, a question asked.
  const open = new Set();
  let logScroll = 0, focused = null;
  const FOCUSABLE = "button, summary, input, select, [tabindex]";
  const placeOf = (node) => {
    const part = node.closest(".wd") && node.closest("[id^=watchdog-]:not(#watchdog-tab)");
    return part && {part: part.id, key: keyOf(node), number: [...part.querySelectorAll(FOCUSABLE)].indexOf(node)};
  };
  const refocus = () => {
    if (!focused || (document.activeElement && document.activeElement !== document.body)) return;
    const found = [...(byId(focused.part)?.querySelectorAll(FOCUSABLE) || [])];
    const same = focused.key && found.find((each) => keyOf(each) === focused.key);
    const node = same || found[Math.min(focused.number, found.length - 1)];  // its row may be gone: then the next one
    if (node) node.focus({preventScroll: true});
  };
  document.addEventListener("pointerdown", () => { focused = null; }, true);
  document.addEventListener("focusin", (event) => {
    if (event.target.matches("#watchdog-run input")) event.target.select();  // typing then replaces the name
  });
  document.addEventListener("focusin", (event) => {
    focused = within(event.target) && event.target.matches(FOCUSABLE) ? placeOf(event.target) : null;
  });
  const settle = () => {
    const tab = byId("watchdog-tab");
    if (!tab) return;
    const card = tab.querySelector(CARD);
    hear(tab);
    retime(tab);
    for (const details of tab.querySelectorAll("details[data-key]")) {
      if (open.has(details.dataset.key) && !details.open) details.open = true;
    }
    const log = tab.querySelector(".wd-log");
    if (log && logScroll && log.scrollTop === 0) log.scrollTop = logScroll;
    for (const line of tab.querySelectorAll("path[data-y]:not([d])")) draw(line);
    for (const box of tab.querySelectorAll("input[data-alert]")) box.checked = wanted(box.dataset.alert);
    if (sure) for (const button of tab.querySelectorAll("button[data-sure]")) {
      if (sure.key === keyOf(button) && !button.classList.contains("wd-sure")) arm(button);
    }
    takeAnswer(tab);
    warn(card);
    refocus();
    if (tip && !tip.hidden && pointed) {  // the plot under the pointer was drawn anew
      const svg = plotOf({target: document.elementFromPoint(...pointed)});
      if (svg) point(svg, pointed[0]); else unpoint();
    }
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
  setInterval(() => {
    const tab = byId("watchdog-tab");
    if (!tab || !(own.shown || alerting())) return;
    retime(tab);
    hear(tab);
    warn(tab.querySelector(CARD));
  }, 1000);

  // Lines are sent as letters, two a place; see plots.py. What a letter stands for comes with the page.
  const LETTERS = "__LETTERS__", GAP = "  ", GOES_ON = "~~";
  const heightAt = (y, place) => {
    const pair = y.substr(2 * place, 2);
    if (pair === GAP || pair === GOES_ON || pair.length < 2) return null;
    return (LETTERS.indexOf(pair[0]) * LETTERS.length + LETTERS.indexOf(pair[1])) / (LETTERS.length ** 2 - 1);
  };
  const draw = (line) => {
    const y = line.dataset.y, places = y.length / 2, box = line.ownerSVGElement.viewBox.baseVal;
    const wide = box.width, deep = box.height - 4;  // 4: the margin for thick lines
    const pieces = [];
    let piece = null;
    for (let place = 0; place < places; place++) {
      const height = heightAt(y, place);
      if (height !== null) {
        if (!piece) pieces.push(piece = []);
        piece.push([((place + 0.5) * wide / places).toFixed(1), (deep * (1 - height)).toFixed(1)]);
      } else if (y.substr(2 * place, 2) === GAP) piece = null;
    }
    const lines = pieces.map((points) => "M" + points.map((point) => point.join(" ")).join("L"));
    line.setAttribute("d", lines.map((d, i) => pieces[i].length > 1 ? d : d + "h2").join(""));
    if (!("fill" in line.dataset)) return;
    const area = document.createElementNS("http://www.w3.org/2000/svg", "path");
    area.setAttribute("class", line.getAttribute("class").replace("wd-line", "wd-area"));
    area.setAttribute("d", lines.map((d, i) => d + "V" + deep + "H" + pieces[i][0][0] + "Z").join(""));
    line.before(area);
  };

  // What a button in the page asks for. What cannot be undone is asked once, on the button itself.
  const ask = (kind, value) => {
    own.wishes.push(JSON.stringify([kind, value]));
    byId("watchdog-do").click();
  };
  let sure = null;
  const keyOf = (node) => node.dataset.act ? node.dataset.act + " " + node.dataset.value : "";
  const arm = (button) => {
    button.dataset.text = button.textContent;
    button.textContent = button.dataset.sure;
    button.classList.add("wd-sure");
  };
  const disarm = () => {
    if (sure) clearTimeout(sure.timer);
    sure = null;
    for (const button of document.querySelectorAll("#watchdog-tab button.wd-sure")) {
      button.textContent = button.dataset.text;
      button.classList.remove("wd-sure");
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("button[data-act]") : null;
    if (!button || !within(button)) { if (event.isTrusted) disarm(); return; }  // our own looks are clicks, too
    if (button.dataset.sure && !button.classList.contains("wd-sure")) {
      disarm();
      sure = {key: keyOf(button), timer: setTimeout(disarm, SURE_MS)};
      arm(button);
      return;
    }
    disarm();
    if (button.dataset.act !== "evidence") button.disabled = true;
    ask(button.dataset.act, button.dataset.value);
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!within(form) || form.dataset.form !== "settings") return;
    event.preventDefault();
    const changed = {};
    for (const field of form.elements) {
      if (!field.name) continue;
      const options = field.options ? [...field.options] : null;
      const before = options ? (options.find((option) => option.defaultSelected) || options[0]).value : field.defaultValue;
      if (field.value !== before) changed[field.name] = field.value;
    }
    ask("settings", changed);
  });
  let answered = "";
  const takeAnswer = (tab) => {
    const found = tab.querySelector("#watchdog-answer [data-answer]");
    if (!found || found.dataset.number === answered) return;
    answered = found.dataset.number;
    const answer = JSON.parse(found.dataset.answer);
    if (answer.kind === "settings") {
      const says = tab.querySelector("[data-form-says]");
      if (says) says.textContent = answer.problem;
    } else if (answer.problem) {
      for (const button of tab.querySelectorAll("button[data-act]:disabled")) button.disabled = false;
    }
    if (!answer.name) return;
    const bytes = Uint8Array.from(atob(answer.file), (letter) => letter.charCodeAt(0));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes], {type: "application/zip"}));
    link.download = answer.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // A run that needs a look says so in the page's title and icon, and where its reader wants it by a sound or a
  // notification. What was wanted is kept in this browser alone.
  const KEY = "fluxgym-watchdog-alert-";
  const wanted = (which) => { try { return localStorage.getItem(KEY + which) === "on"; } catch { return false; } };
  const alerting = () => wanted("sound") || wanted("notification");
  // Gradio 4 shows what has come when the page is next painted, which a hidden page never is.
  const paint = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (run) => {
    if (!document.hidden || !alerting()) return paint(run);
    let ran = false;
    const once = (now) => { if (!ran) { ran = true; run(now); } };
    setTimeout(() => once(performance.now()), 300);
    return paint(once);
  };
  const sayOfAlerts = (text) => { const says = document.querySelector("[data-alert-says]"); if (says) says.textContent = text; };
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!within(box) || !box.dataset.alert) return;
    try { localStorage.setItem(KEY + box.dataset.alert, box.checked ? "on" : "off"); }
    catch { sayOfAlerts("This browser keeps nothing for this page, so it cannot be switched on."); return; }
    sayOfAlerts("");
    if (!box.checked) return;
    if (box.dataset.alert === "sound") beep();
    else if (!("Notification" in window) || !window.isSecureContext) {
      sayOfAlerts("This browser shows notifications only for pages over https or on this machine.");
    } else if (Notification.permission !== "granted") {
      Notification.requestPermission().then((answer) => {
        if (answer !== "granted") sayOfAlerts("The browser does not allow notifications for this page.");
      });
    }
  });
  let audio = null;
  const beep = () => {
    try {
      audio = audio || new AudioContext();
      audio.resume();
      for (const [begin, pitch] of [[0, 660], [0.25, 440]]) {
        const tone = audio.createOscillator(), volume = audio.createGain();
        tone.frequency.value = pitch;
        volume.gain.value = 0.2;
        tone.connect(volume).connect(audio.destination);
        tone.start(audio.currentTime + begin);
        tone.stop(audio.currentTime + begin + 0.2);
      }
    } catch { sayOfAlerts("This browser plays no sound for this page."); }
  };
  const ICON = "data:image/svg+xml," + encodeURIComponent(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='8' fill='#b91c1c'/>" +
    "<path d='M7 3h2v6H7zM7 11h2v2H7z' fill='#fff'/></svg>");
  let title = null, icons = [], alerted = null, alertedOf = null;
  const warn = (card) => {
    const here = card && card.dataset.alert ? card.dataset.name + ": " + card.dataset.alert : "";
    const others = document.querySelector("#watchdog-card [data-elsewhere]");
    const silent = byId("watchdog-silent") ? "no answer from FluxGym" : "";
    const pieces = [silent, here, others && others.dataset.elsewhere].filter(Boolean), text = pieces.join(", ");
    if (text) {
      if (title === null) {
        title = document.title;
        icons = [...document.querySelectorAll("link[rel~=icon]")].map((link) => [link, link.href]);
        if (!icons.length) {
          const link = document.createElement("link");
          link.rel = "icon";
          document.head.append(link);
          icons = [[link, ""]];
        }
        for (const [link] of icons) link.href = ICON;
      }
      document.title = "\u26a0 " + text;
    } else if (title !== null) {
      document.title = title;
      for (const [link, href] of icons) if (href) link.href = href; else link.remove();
      title = null;
    }
    // Not for what was so already when the page was opened, or the run was picked: its reader is looking.
    if (card && card.dataset.name !== alertedOf) { alertedOf = card.dataset.name; alerted = null; }
    const news = alerted === null ? "" : pieces.filter((piece) => !alerted.includes(piece)).join(", ");
    if (card && news) {
      if (wanted("sound")) beep();
      if (wanted("notification") && "Notification" in window && Notification.permission === "granted") {
        try { new Notification(news, {body: "FluxGym Watchdog", tag: "fluxgym-watchdog"}); } catch { /* a phone */ }
      }
    }
    if (card) alerted = pieces;
  };

  // Values under the pointer.
  let tip = null, pointed = null;
  const unpoint = () => { if (tip) tip.hidden = true; };
  const number = (v) => Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toPrecision(3);
  const heightNear = (y, place) => {
    const own = [place, place - 1, place + 1].map((each) => heightAt(y, each)).find((height) => height !== null);
    if (own !== undefined || y.substr(2 * place, 2) !== GOES_ON) return own === undefined ? null : own;
    let a = place, b = place;
    while (heightAt(y, a) === null) a--;
    while (heightAt(y, b) === null) b++;
    return heightAt(y, a) + (heightAt(y, b) - heightAt(y, a)) * (place - a) / (b - a);
  };
  const point = (svg, left) => {
    if (!tip) {
      tip = document.createElement("div");
      tip.id = "watchdog-tip";
      tip.append(document.createElement("i"), document.createElement("div"));
      tip.lastChild.setAttribute("role", "status");
      document.body.append(tip);
    }
    const box = svg.getBoundingClientRect(), figure = svg.closest("figure").dataset;
    const wide = svg.viewBox.baseVal.width;
    const share = Math.min(1, Math.max(0, (left - box.left) / box.width)), x = share * wide;
    const from = Number(figure.from), low = Number(figure.low), high = Number(figure.high);
    const value = (height) => "log" in figure ? low * Math.pow(high / low, height) : low + (high - low) * height;
    const lines = [clock(from + share * (Number(figure.to) - from), true)];
    const paths = [...svg.querySelectorAll("path[data-name]")];
    for (const path of paths) {
      const places = path.dataset.y.length / 2;
      const height = heightNear(path.dataset.y, Math.min(places - 1, Math.floor(share * places)));
      const text = height === null ? "–" : number(value(height)) + " " + figure.unit;
      lines.push(paths.length > 1 ? path.dataset.name + ": " + text : text);
    }
    const use = svg.querySelector("use"), marks = use && document.querySelector(use.getAttribute("href"));
    for (const mark of marks ? marks.children : []) {
      if (Math.abs(Number(mark.dataset.x) - x) * box.width / wide <= 6) lines.push("\u25be " + mark.textContent);
    }
    const [hair, text] = tip.children;
    text.textContent = lines.join("\n");
    tip.hidden = false;
    left = box.left + share * box.width;
    hair.style.left = left + "px";
    hair.style.top = box.top + "px";
    hair.style.height = box.height + "px";
    const right = left + 14 + text.offsetWidth > document.documentElement.clientWidth;
    text.style.left = Math.max(4, right ? left - 14 - text.offsetWidth : left + 14) + "px";
    text.style.top = box.top + 6 + "px";
  };
  const plotOf = (event) => event.target instanceof Element ? event.target.closest("#watchdog-tab svg.wd-plot") : null;
  const follow = (event) => {
    const svg = plotOf(event);
    pointed = svg && [event.clientX, event.clientY];
    if (svg) point(svg, event.clientX); else unpoint();
  };
  document.addEventListener("pointermove", follow, {passive: true});
  document.addEventListener("pointerdown", follow, {passive: true});
  document.addEventListener("scroll", unpoint, {passive: true});
  let keyed = 1;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { disarm(); unpoint(); return; }
    const svg = plotOf(event), step = {ArrowLeft: -0.01, ArrowRight: 0.01}[event.key];
    if (!svg || !step) return;
    event.preventDefault();
    pointed = null;
    keyed = Math.min(1, Math.max(0, keyed + step * (event.shiftKey ? 10 : 1)));
    const box = svg.getBoundingClientRect();
    point(svg, box.left + keyed * box.width);
  });
  check();
}
