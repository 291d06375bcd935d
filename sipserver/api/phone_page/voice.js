// A call by the plain voice WebSocket, which comes back when its connection breaks (docs/voice-websocket.md).
const KEPT_SAMPLES = 6 * 16000;
const OPEN_S = 5;

export class VoiceCall {
  // heard: {event(message), up(path), ended(reason), trip(ms)}
  constructor(context, microphone, speaker, permit, heard) {
    Object.assign(this, { context, microphone, speaker, permit, heard });
    this.kept = [];
    this.keptSamples = this.sent = this.received = this.acknowledged = this.said = 0;
    this.muted = this.over = false;
    this.key = "";
  }

  async start() {
    await this.context.audioWorklet.addModule("/phone/worklet.js");
    this.capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.playback = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.capture.port.onmessage = ({ data }) => this.speak(data);
    this.playback.port.onmessage = ({ data }) => this.tell("mark", { name: data });
    this.playback.connect(this.speaker);
    await this.open();
    this.microphone.connect(this.capture);
    this.timer = setInterval(() => this.everySecond(), 1000);
  }

  open() {
    const url = new URL(`/ws/voice/${this.permit.call_id}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.key) url.searchParams.set("resume", this.key);
    const socket = this.key ? new WebSocket(url) : new WebSocket(url, [`token.${this.permit.voice_token}`]);
    socket.binaryType = "arraybuffer";
    return new Promise((done, fail) => {
      const late = setTimeout(() => { socket.close(); fail(new Error("The server does not answer.")); }, OPEN_S * 1000);
      socket.onopen = () => socket.send(JSON.stringify(
        this.key ? { type: "resume", received: this.received, said: this.said } : { type: "start", events: true }));
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return this.play(data);
        const message = JSON.parse(data);
        if (message.type === "started" || message.type === "resumed") {
          clearTimeout(late);
          this.socket = socket;
          if (this.over) { // hung up while this connection came up
            this.hangUp();
            return done();
          }
          if (message.type === "started") [this.key, this.resumeS] = [message.resume, message.resume_s];
          else this.sendAgain(message.received);
          this.heard.up("WebSocket");
          done();
        } else this.hear(message);
      };
      socket.onclose = ({ code }) => {
        clearTimeout(late);
        const was = this.socket === socket;
        if (was) this.socket = null;
        if (this.over) return;
        if (code === 1000 || code === 1001) {
          this.end(this.reason || (code === 1001 ? "the server shuts down" : "the server hung up"));
          fail(new Error("The call is over."));
        } else if (was) this.comeBack();
        else fail(new Error(code === 4429 || code === 1006 ? "The server did not take the call." : `The call was refused (${code}).`));
      };
    });
  }

  async comeBack() {
    this.heard.up("WebSocket, coming back");
    const until = performance.now() + this.resumeS * 1000;
    while (!this.over && performance.now() < until) {
      try { return await this.open(); } catch { await new Promise((go) => setTimeout(go, 300)); }
    }
    this.end("the connection was lost");
  }

  hear(message) {
    if (message.n) {
      if (message.n <= this.said) return;
      this.said = message.n;
    }
    if (message.type === "mark") this.playback.port.postMessage({ mark: message.name });
    else if (message.type === "clear") this.playback.port.postMessage({ clear: true });
    else if (message.type === "pong") this.heard.trip(performance.now() - message.at);
    else if (message.type === "event") this.heard.event(message);
    else if (message.type === "ack") this.forget(message.received);
    else if (message.type === "hangup") this.reason = this.reason || message.reason;
  }

  play(buffer) {
    const at = Number(new DataView(buffer).getBigUint64(0));
    const samples = new Int16Array(buffer.slice(8));
    const known = Math.max(0, this.received - at);
    this.received = Math.max(this.received, at + samples.length);
    if (known < samples.length) this.playback.port.postMessage({ samples: samples.subarray(known) });
  }

  speak(samples) {
    if (this.over) return;
    if (this.muted) samples.fill(0);
    const message = new ArrayBuffer(8 + samples.byteLength);
    new DataView(message).setBigUint64(0, BigInt(this.sent));
    new Int16Array(message, 8).set(samples);
    this.kept.push({ at: this.sent, message });
    this.sent += samples.length;
    while (this.kept.length && this.sent - this.kept[0].at > KEPT_SAMPLES) this.kept.shift();
    if (this.socket) this.socket.send(message);
  }

  forget(received) {
    while (this.kept.length > 1 && this.kept[1].at <= received) this.kept.shift();
  }

  sendAgain(received) {
    this.forget(received);
    for (const { message } of this.kept) this.socket.send(message);
  }

  everySecond() {
    this.tell("ping", { at: Math.round(performance.now()) });
    if (this.received > this.acknowledged) {
      this.acknowledged = this.received;
      this.tell("ack", { received: this.received });
    }
  }

  tell(type, fields = {}) {
    if (this.socket) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  press(digit) { this.tell("dtmf", { digits: digit }); }

  mute(on) { this.muted = on; }

  hangUp() {
    this.tell("hangup");
    if (this.socket) this.socket.close(1000);
    this.end("you hung up");
  }

  end(reason) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.timer);
    this.capture.disconnect();
    this.playback.disconnect();
    this.heard.ended(reason);
  }
}
