// The page works without this file. It keeps what is marked data-live up to date while the server
// tells of news, sorts and filters without a reload, and extends the session.
"use strict";

const LEAST_MS = 1500; // between two updates: what a person can follow
const EXTEND_MS = 10 * 60 * 1000; // an access token lives a quarter of an hour
const TYPING_MS = 200;

let busy = false;
let again = false;
let last = 0;

function replace(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now) {
      old.remove();
    } else if (!old.isEqualNode(now)) {
      swap(old, now);
    }
  }
  const here = new Set([...document.querySelectorAll("[data-live]")].map((e) => e.id));
  const missing = [...fresh.querySelectorAll("main [data-live]")].some((e) => !here.has(e.id));
  if (missing) document.querySelector("main").replaceWith(fresh.querySelector("main"));
  document.title = fresh.title;
}

// A form that somebody is filling in stays as it is; so does the place in a wide table.
function swap(old, now) {
  const active = document.activeElement;
  const form = active && old.contains(active) ? active.closest("form") : null;
  const left = [...old.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
  const kept = form && now.querySelector(`form[class="${form.className}"]`);
  if (kept) {
    const at = active.selectionStart;
    kept.replaceWith(form);
    old.replaceWith(now);
    active.focus();
    if (typeof at === "number") active.setSelectionRange(at, at);
  } else {
    const link = active && old.contains(active) ? active.getAttribute("href") : null;
    old.replaceWith(now);
    if (link) [...now.querySelectorAll("a")].find((a) => a.getAttribute("href") === link)?.focus();
  }
  now.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = left[i] || 0; });
}

async function update() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      const wait = last + LEAST_MS - Date.now();
      if (wait > 0) await new Promise((done) => setTimeout(done, wait));
      await look();
    } while (again);
  } finally {
    busy = false;
  }
}

async function look() {
  last = Date.now();
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
  if (answer.type === "opaqueredirect") { location.reload(); return; }
  if (!answer.ok) return;
  replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
}

function listen() {
  const version = document.querySelector('meta[name="gossipfl-version"]').content;
  const source = new EventSource("/page/events?since=" + encodeURIComponent(version));
  const offline = document.getElementById("offline");
  source.addEventListener("page", () => { update().catch(() => {}); });
  source.onopen = () => { offline.hidden = true; document.body.classList.remove("gone"); };
  source.onerror = () => {
    offline.hidden = false;
    document.body.classList.add("gone");
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => { update().catch(() => {}); listen(); }, 5000); // perhaps signed out
    }
  };
}

function go(url) {
  history.replaceState(null, "", url);
  last = 0;
  update().catch(() => location.assign(url));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-sort]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.href);
});

let typing = 0;
function filter(event) {
  const form = event.target.closest("form[data-filter]");
  if (!form) return;
  if (event.type === "submit") event.preventDefault();
  clearTimeout(typing);
  typing = setTimeout(() => {
    go("/?" + new URLSearchParams(new FormData(form)) + "#fleet");
  }, TYPING_MS);
}
for (const kind of ["input", "change", "submit"]) document.addEventListener(kind, filter);

// One tab at a time: a refresh token works once.
function extend() {
  const send = () => fetch("/api/v1/auth/session/refresh", { method: "POST" });
  if (navigator.locks) navigator.locks.request("gossipfl-session", send).catch(() => {});
  else send().catch(() => {});
}
if (document.querySelector("form.out")) setInterval(extend, EXTEND_MS);

listen();
