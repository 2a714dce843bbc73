// Keeps a page current: events say when to look, the server renders, the parts marked `data-live` are exchanged.
"use strict";

const pulse = document.getElementById("pulse");
const since = document.body.dataset.since;
let busy = false;
let again = false;

function tell(state, text) {
  if (!pulse) return;
  pulse.className = "pulse " + state;
  pulse.textContent = text;
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.reload(); return; }
    if (answer.ok) exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch (error) {
    tell("off", "offline");
  }
  await new Promise((done) => setTimeout(done, 400));
  busy = false;
  if (again) { again = false; refresh(); }
}

function exchange(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    // A part that holds the keyboard's focus or an open choice is left alone until it is free again.
    if (!next || next.innerHTML === part.innerHTML || part.contains(document.activeElement)) continue;
    const open = [...part.querySelectorAll("details")].map((each) => each.open);
    part.innerHTML = next.innerHTML;
    part.querySelectorAll("details").forEach((each, at) => { if (at in open) each.open = open[at]; });
  }
}

function watch() {
  const events = new EventSource("/v1/watch?since=" + encodeURIComponent(since));
  events.onopen = () => { tell("on", "live"); refresh(); };
  events.onerror = () => tell("off", "reconnecting");
  events.addEventListener("event", refresh);
  setInterval(refresh, 15000); // prices, waits and free slots move without an event
}

function follow(pre) {
  const offsets = { out: 0, err: 0 };
  const decoders = { out: new TextDecoder(), err: new TextDecoder() };
  let attempt = 0;
  const open = () => {
    const events = new EventSource(pre.dataset.log + `&out=${offsets.out}&err=${offsets.err}`);
    events.addEventListener("log", (event) => {
      const log = JSON.parse(event.data);
      if (log.attempt !== attempt) { attempt = log.attempt; offsets.out = offsets.err = 0; }
      if (log.offset < offsets[log.channel]) return;
      const bytes = Uint8Array.from(atob(log.data), (char) => char.charCodeAt(0));
      offsets[log.channel] = log.offset + bytes.length;
      append(pre, log.channel, decoders[log.channel].decode(bytes, { stream: true }));
    });
    events.addEventListener("end", () => events.close());
    events.onerror = () => { events.close(); setTimeout(open, 2000); };
  };
  open();
}

function append(pre, channel, text) {
  const low = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
  const part = document.createElement("span");
  part.className = channel;
  part.textContent = text;
  pre.append(part);
  while (pre.childNodes.length > 4000) pre.firstChild.remove();
  if (low) pre.scrollTop = pre.scrollHeight;
}

if (since !== undefined) watch();
document.querySelectorAll("[data-log]").forEach(follow);
