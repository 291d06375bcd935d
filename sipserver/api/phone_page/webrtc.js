// A call by WebRTC: an offer by HTTP, as WHIP does it (RFC 9725), events and digits over the data channel "sipserver".
const CONNECT_MS = 3000;
const GATHER_MS = 1000;

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

  async negotiate(method, url) {
    const before = this.peer;
    const peer = this.peer = new RTCPeerConnection({ iceServers: this.permit.ice_servers });
    for (const track of this.stream.getAudioTracks()) peer.addTrack(track, this.stream);
    const channel = this.channel = peer.createDataChannel("sipserver");
    channel.onmessage = ({ data }) => this.hear(JSON.parse(data));
    peer.ontrack = ({ track }) => this.speaker(new MediaStream([track]));
    try {
      await peer.setLocalDescription(await peer.createOffer());
      await gathered(peer);
      const answer = await fetch(url, {
        method,
        headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${this.permit.token}` },
        body: peer.localDescription.sdp,
      });
      if (!answer.ok) throw new Error(`WebRTC was refused (${answer.status}).`);
      this.session = answer.headers.get("Location") || this.session;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      await connected(peer);
    } catch (problem) {
      peer.close();
      if (!this.up) this.leave();
      throw problem;
    }
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
    try {
      await this.negotiate("PATCH", this.session);
      this.heard.up("WebRTC");
    } catch {
      this.end(this.reason || "the connection was lost");
    }
    this.restarting = false;
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
