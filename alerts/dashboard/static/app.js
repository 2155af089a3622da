// The page works without this file. With it, the page follows the server's event stream in place, shows times in
// the viewer's own zone, and says so loudly when the stream has stopped.
"use strict";

const SILENT_AFTER_MS = 12000; // the server speaks at least every 5 s

const main = document.getElementById("main");
const gone = document.getElementById("gone");
const freshness = document.getElementById("freshness");
let heardAt = performance.now();
let heardTime = new Date(freshness.dataset.now);

const STYLES = {
  time: { hour: "2-digit", minute: "2-digit" },
  seconds: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
  full: { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" },
};

function shown(moment, style) {
  const isToday = moment.toDateString() === new Date().toDateString();
  const format = { ...(STYLES[style] || STYLES.time), hourCycle: "h23" };
  if (!isToday && style !== "full") {
    Object.assign(format, { month: "short", day: "numeric" });
  }
  return new Intl.DateTimeFormat(undefined, format).format(moment);
}

function localise(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    element.textContent = shown(new Date(element.getAttribute("datetime")), element.dataset.show);
  }
}

// Make `now` like `next` without replacing what has not changed: focus, open details and what is being typed stay.
function follow(now, next) {
  for (const { name } of [...now.attributes]) {
    const isOpenDetails = now.localName === "details" && name === "open";
    if (!next.hasAttribute(name) && !isOpenDetails) now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  const kept = new Map();
  for (const child of now.children) if (child.id) kept.set(child.id, child);
  let place = now.firstChild;
  for (const wanted of [...next.childNodes]) {
    let found = wanted.id ? kept.get(wanted.id) : null;
    if (!found && place && !place.id && !wanted.id && place.nodeName === wanted.nodeName) found = place;
    if (!found) {
      now.insertBefore(wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else now.insertBefore(found, place);
    if (found.nodeType === Node.ELEMENT_NODE) follow(found, wanted);
    else if (found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}

function heard(event) {
  heardAt = performance.now();
  heardTime = new Date(event.lastEventId);
  sayFreshness();
}

function sayFreshness() {
  const isSilent = performance.now() - heardAt > SILENT_AFTER_MS;
  document.body.classList.toggle("is-cut-off", isSilent);
  const words = isSilent
    ? `No connection to the dashboard since ${shown(heardTime, "seconds")}. All that you see below is OLD. ` +
      "Check that the dashboard is running, and look at the pumps by other means."
    : "";
  if (gone.textContent !== words) gone.textContent = words;
  gone.hidden = !isSilent;
  freshness.textContent = isSilent ? "not up to date" : `up to date: ${shown(heardTime, "seconds")}`;
}

function listen() {
  const stream = new EventSource(`/events?page=${encodeURIComponent(main.dataset.page)}`);
  stream.addEventListener("main", (event) => {
    const next = document.createElement("template");
    next.innerHTML = `<main id="main" data-page="${main.dataset.page.replace(/["&<>]/g, "")}"></main>`;
    const wanted = next.content.firstElementChild;
    wanted.innerHTML = JSON.parse(event.data);
    localise(wanted);
    follow(main, wanted);
    heard(event);
  });
  stream.addEventListener("beat", heard);
  stream.addEventListener("error", () => {
    // Not yet "gone": a restart of the dashboard takes a second. The browser connects again by itself.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

localise(document);
sayFreshness();
setInterval(sayFreshness, 1000);
listen();
