// Brings a page up to date while somebody looks: the server tells that something moved, the page is fetched again, and
// its parts are put in place. Without this a page is right as of when it was loaded.
"use strict";

const live = document.querySelector("[data-live]");
const ahead = Number(document.body.dataset.now) - Date.now(); // of this machine's clock

// Times go on ----------------------------------------------------------------------------------

const UNITS = [[86400000, "d"], [3600000, "h"], [60000, "min"]];

function duration(ms) { // as words.py says it
  for (const [unit, name] of UNITS) if (ms >= 2 * unit) return `${Math.floor(ms / unit)} ${name}`;
  return `${Math.floor(ms / 1000)} s`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-ms]")) {
    const away = Date.now() + ahead - Number(time.dataset.ms);
    time.textContent = away >= 1000 ? `${duration(away)} ago` : away > -1000 ? "now" : `in ${duration(-away)}`;
  }
}

// Parts are replaced ---------------------------------------------------------------------------

let fetching = false;
let again = false;

async function refresh() {
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    do {
      again = false;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok) replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } while (again);
  } catch {
    say("lost", "the console does not answer");
  } finally {
    fetching = false;
  }
}

function replaceParts(page) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || fresh.innerHTML === part.innerHTML || isInUse(part)) continue;
    const before = new Map([...part.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, words(row)]));
    const scrolled = [...part.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    part.replaceWith(document.adoptNode(fresh));
    [...fresh.querySelectorAll(".scroll")].forEach((each, n) => { each.scrollLeft = scrolled[n] ?? 0; });
    if (!before.size) continue;
    for (const row of fresh.querySelectorAll("tr[data-key]"))
      if (before.get(row.dataset.key) !== words(row)) row.classList.add("fresh");
  }
  tellTimes();
}

function isInUse(part) { // somebody is at a link of it, or has marked words in it
  const marked = getSelection();
  return part.contains(document.activeElement) || (!marked.isCollapsed && part.contains(marked.anchorNode));
}

function words(row) { // without its times, which change by themselves
  const copy = row.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) time.remove();
  return copy.textContent;
}

function addBlock(html) {
  const log = document.getElementById("blocks");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.insertAdjacentHTML("beforeend", html);
  while (log.childElementCount > 5000) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// The server tells -----------------------------------------------------------------------------

let stream = null;

function say(state, title) {
  if (!live) return;
  live.dataset.state = state;
  live.title = `live updates: ${title}`;
}

function listen() {
  stream = new EventSource(live.dataset.live);
  stream.onopen = () => say("on", "on");
  stream.onerror = () => say("lost", "the console does not answer");
  stream.addEventListener("moved", refresh);
  stream.addEventListener("block", (event) => addBlock(event.data)); // HTML of ours, escaped where it was made
  stream.addEventListener("complete", () => { stream.close(); say("on", "complete"); refresh(); });
  stream.addEventListener("ended", (event) => { say("lost", event.data); stream.close(); });
}

if (live) {
  listen();
  document.addEventListener("visibilitychange", () => { // a browser has few connections for each host: hidden pages have none
    stream.close();
    if (document.hidden) return;
    if (document.getElementById("blocks")) { location.reload(); return; }
    listen();
    refresh();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea")) return;
  const field = document.querySelector("form input:not([type=hidden])");
  if (field) { event.preventDefault(); field.focus(); field.select(); }
});

const log = document.getElementById("blocks");
if (log) log.scrollTop = log.scrollHeight;

tellTimes();
setInterval(tellTimes, 1000);
