// The phone page: from the buttons to a call and back. Sound travels by WebRTC, or by the plain voice WebSocket where
// that has no path or `?transport=ws` asks for it.
import { advice, line, Meter, part } from "/phone/parts.js";
import { VoiceCall } from "/phone/voice.js";
import { WebRtcCall } from "/phone/webrtc.js";

const SOUND = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
const DIGITS = "123456789*0#";
const forced = new URLSearchParams(location.search).get("transport");

let call = null;
let stream = null;
let context = null;
let meters = [];
let began = 0;
let wanted = false;
let attempt = 0;
let why = "";
let callState = "";

function state(text) { part("state").textContent = text; log(text); }

function log(text) { line(part("log"), `${new Date().toLocaleTimeString("en-GB")} ${text}`); }

function problem(text) {
  part("problem").hidden = !text;
  part("problem").textContent = text;
  if (text) log(text);
}

function busy(on) {
  part("call").hidden = on;
  part("hangup").hidden = !on;
  part("to").disabled = on;
  part("mute").disabled = !on;
  for (const button of part("pad").children) button.disabled = !on;
  (on ? part("hangup") : part("call")).focus();
}

async function begin() {
  problem("");
  if (!window.isSecureContext || !navigator.mediaDevices) {
    problem("Browsers give the microphone to secure pages only. Open this page by https, or as http://127.0.0.1 on the server's own machine.");
    return;
  }
  const mine = ++attempt;
  const current = () => wanted && mine === attempt; // not hung up meanwhile, and not called anew
  wanted = true;
  why = "";
  callState = "";
  busy(true);
  part("talk").replaceChildren();
  for (const id of ["duration", "path", "round-trip", "latency"]) part(id).textContent = "–";
  try {
    state("Waiting for the microphone");
    const microphone = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
    if (!current()) {
      for (const track of microphone.getTracks()) track.stop();
      return;
    }
    stream = microphone;
    state("Calling");
    await connect(part("to").value.trim(), current);
  } catch (trouble) {
    if (current()) {
      problem(advice(trouble));
      ended("not connected");
    }
  }
}

async function connect(to, current) {
  const permit = await allowed(to);
  if (!current()) return;
  context = makeContext();
  await context.resume();
  const microphone = context.createMediaStreamSource(stream);
  const [mine, theirs] = [analyser(), analyser()];
  microphone.connect(mine);
  theirs.connect(context.destination);
  meters = [new Meter(part("you"), mine), new Meter(part("they"), theirs)];
  requestAnimationFrame(draw);
  const ours = attempt;
  const ifOurs = (tell) => (...told) => { if (ours === attempt && stream) tell(...told); };
  const heard = { event: ifOurs(event), up: ifOurs(up), trip: ifOurs(trip), ended: ifOurs(ended) };
  if (forced !== "ws" && window.RTCPeerConnection) {
    const speaker = (sound) => {
      const player = new Audio();
      player.srcObject = sound;
      player.muted = true; // Chromium feeds a remote stream to the context only while an element plays it.
      player.play().catch(() => {});
      context.createMediaStreamSource(sound).connect(theirs);
    };
    const byWebRtc = new WebRtcCall(stream, speaker, permit, to, heard);
    try {
      await byWebRtc.start();
      return take(byWebRtc, current);
    } catch (trouble) {
      if (!current()) return;
      log(`${advice(trouble)} Taking the WebSocket.`);
    }
  }
  const byVoice = new VoiceCall(context, microphone, theirs, permit, heard);
  await byVoice.start();
  take(byVoice, current);
}

function take(made, current) {
  if (!current()) return made.hangUp();
  call = made;
  call.mute(part("mute").getAttribute("aria-pressed") === "true");
}

async function allowed(to) {
  const answer = await fetch("/phone/token", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ to }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ? `The server refused: ${body.error.message}.` : "The server refused.");
  return body;
}

function makeContext() {
  const made = new AudioContext({ sampleRate: 16000, latencyHint: "interactive" });
  try {
    made.createMediaStreamSource(stream).disconnect();
    return made;
  } catch {
    made.close();
    return new AudioContext({ latencyHint: "interactive" });
  }
}

function analyser() {
  const node = context.createAnalyser();
  node.fftSize = 512;
  return node;
}

function draw(now) {
  if (!meters.length) return;
  for (const meter of meters) meter.draw(now);
  if (began) part("duration").textContent = clock((now - began) / 1000);
  requestAnimationFrame(draw);
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function up(path) {
  began = began || performance.now();
  part("path").textContent = path;
  state(path.includes("coming back") ? "Coming back" : "In call");
}

function trip(ms) { part("round-trip").textContent = `${Math.max(1, Math.round(ms))} ms`; }

function event(message) {
  switch (message.kind) {
    case "call.state":
      if (message.state !== callState) log(`call: ${callState = message.state}`);
      return;
    case "call.routed": return log(`flow: ${message.flow}`);
    case "transcript": if (message.final && message.text) line(part("talk"), message.text, "caller"); return;
    case "spoken": if (message.text) line(part("talk"), message.complete ? message.text : `${message.text} …`, "server"); return;
    case "turn.latency":
      part("latency").textContent = `${message.total_ms} ms`;
      return log(`answer after ${message.total_ms} ms: endpoint ${message.endpoint_ms}, text ${message.stt_ms}, model ${message.llm_ms}, voice ${message.tts_ms}, playout ${message.playout_ms}`);
    case "digit": return log(`digit ${message.digit}`);
    case "recording": return log(`recording ${message.state}`);
    case "fault": return log(`fault: ${message.what}`);
    case "hangup": why = why || (message.reason || "").replaceAll("_", " "); return;
  }
}

function ended(reason) {
  wanted = false;
  call = null;
  began = 0;
  for (const meter of meters) meter.show(0, performance.now());
  meters = [];
  if (context) context.close();
  if (stream) for (const track of stream.getTracks()) track.stop();
  context = stream = null;
  busy(false);
  const because = why || reason;
  state(because ? `Ended: ${because}` : "Ended");
}

function hangUp() {
  wanted = false;
  if (call) call.hangUp();
  else ended("you hung up");
}

function press(digit) {
  if (!call) return;
  call.press(digit);
  log(`pressed ${digit}`);
}

function prepare() {
  for (const digit of DIGITS) {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = true;
    button.textContent = digit;
    button.setAttribute("aria-label", { "*": "star", "#": "hash" }[digit] || digit);
    button.onclick = () => press(digit);
    part("pad").append(button);
  }
  part("dial").onsubmit = (submitted) => { submitted.preventDefault(); if (!wanted) begin(); };
  part("hangup").onclick = hangUp;
  part("mute").onclick = () => {
    const on = part("mute").getAttribute("aria-pressed") !== "true";
    part("mute").setAttribute("aria-pressed", on);
    if (call) call.mute(on);
  };
  document.addEventListener("keydown", ({ key, ctrlKey, altKey, metaKey, repeat }) => {
    if (call && !repeat && !ctrlKey && !altKey && !metaKey && key.length === 1 && DIGITS.includes(key)) press(key);
  });
  window.addEventListener("pagehide", () => call && call.hangUp());
}

async function offerUsers() {
  const { users, free } = await (await fetch("/phone/users")).json();
  for (const user of users) part("users").append(new Option(user));
  if (users.length) part("to").value = users[0];
  if (!free) part("hint").textContent = `One of: ${users.join(", ")}.`;
}

prepare();
offerUsers().catch((trouble) => problem(advice(trouble)));
