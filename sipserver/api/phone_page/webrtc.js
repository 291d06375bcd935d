// A call by WebRTC: an offer by HTTP, as WHIP does it (RFC 9725), events and digits over the data channel "sipserver".
const CONNECT_MS = 3000;
const GATHER_MS = 1000;
const COME_BACK_MS = 10000; // as long as the server waits (webrtc.restart_s)
const AGAIN_MS = 300;

export class WebRtcCall {
  constructor(stream, speaker, permit, to, heard) {
    Object.assign(this, { stream, speaker, permit, to, heard });
    this.over = this.up = false;
    this.session = "";
  }

  // Rejects when there is no path within CONNECT_MS, or no WebRTC at all: the caller takes the WebSocket then.
  async start() {
    await this.negotiate("POST", `/webrtc/${encodeURIComponent(this.to)}`);
    this.up = true;
    this.heard.up("WebRTC");
    this.timer = setInterval(() => this.everySecond(), 1000);
  }

  // The new connection takes the old one's place when its path is there; one that fails changes nothing.
  async negotiate(method, url) {
    const peer = this.next = new RTCPeerConnection({ iceServers: this.permit.ice_servers });
    for (const track of this.stream.getAudioTracks()) peer.addTrack(track, this.stream);
    const channel = peer.createDataChannel("sipserver");
    channel.onmessage = ({ data }) => this.hear(JSON.parse(data));
    peer.ontrack = ({ track }) => this.speaker(new MediaStream([track]));
    try {
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      const answer = await fetch(url, {
        method,
        headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${this.permit.token}` },
        body: peer.localDescription.sdp,
        signal: this.up ? AbortSignal.timeout(COME_BACK_MS) : null,
      });
      if (!answer.ok) throw Object.assign(new Error(`WebRTC was refused (${answer.status}).`), { status: answer.status });
      this.session = answer.headers.get("Location") || this.session;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      await connected(peer);
    } catch (problem) {
      peer.close();
      if (!this.up) this.leave();
      throw problem;
    }
    const before = this.peer;
    Object.assign(this, { peer, channel });
    if (before) before.close();
    peer.onconnectionstatechange = () => this.changed(peer);
  }

  changed(peer) {
    if (this.over || peer !== this.peer) return;
    if (peer.connectionState === "failed" || peer.connectionState === "disconnected") this.restart();
    else if (peer.connectionState === "closed") this.end("the connection was lost");
  }

  async restart() {
    if (this.restarting) return;
    this.restarting = true;
    this.heard.up("WebRTC, coming back");
    const back = await this.comeBack();
    this.restarting = false;
    if (back) this.heard.up("WebRTC");
    else this.end(this.reason || "the connection was lost");
  }

  // True when there is a path again, a new one or the old one.
  async comeBack() {
    const until = performance.now() + COME_BACK_MS;
    while (!this.over && performance.now() < until) {
      try {
        await this.negotiate("PATCH", this.session);
        return true;
      } catch ({ status }) {
        if (this.peer.connectionState === "connected") return true;
        if (status === 404) return false;
        await new Promise((go) => setTimeout(go, AGAIN_MS));
      }
    }
    return false;
  }

  hear(message) {
    if (message.pong !== undefined) this.heard.trip(performance.now() - message.pong);
    else {
      if (message.kind === "hangup") {
        this.reason = message.reason || "hung up";
        setTimeout(() => this.end(this.reason), 200);
      }
      this.heard.event(message);
    }
  }

  everySecond() { this.tell({ ping: performance.now() }); }

  tell(message) {
    if (this.channel.readyState === "open") this.channel.send(JSON.stringify(message));
  }

  press(digit) { this.tell({ digits: digit }); }

  mute(on) { for (const track of this.stream.getAudioTracks()) track.enabled = !on; }

  hangUp() {
    this.leave();
    this.end("you hung up");
  }

  leave() {
    if (!this.session) return;
    fetch(this.session, { method: "DELETE", keepalive: true, headers: { Authorization: `Bearer ${this.permit.token}` } }).catch(() => {});
  }

  end(reason) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.timer);
    this.peer.close();
    this.next.close();
    this.heard.ended(reason);
  }
}

function gathered(peer) {
  return new Promise((done) => {
    const check = () => peer.iceGatheringState === "complete" && done();
    peer.addEventListener("icegatheringstatechange", check);
    setTimeout(done, GATHER_MS);
    check();
  });
}

function connected(peer) {
  return new Promise((done, fail) => {
    const late = setTimeout(() => fail(new Error("No path by WebRTC.")), CONNECT_MS);
    const check = () => {
      if (peer.connectionState === "connected") { clearTimeout(late); done(); }
      if (peer.connectionState === "failed") { clearTimeout(late); fail(new Error("No path by WebRTC.")); }
    };
    peer.addEventListener("connectionstatechange", check);
    check();
  });
}
