// A page that calls, in small: what a client needs and no more. `window.phone` is what tests drive.
window.phone = (() => {
  const shown = []
  let peer, channel, location_, etag, context, analyser

  async function made(options) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false},
    })
    const one = new RTCPeerConnection(options)
    stream.getTracks().forEach((track) => one.addTrack(track, stream))
    channel = one.createDataChannel("sipserver")
    channel.onmessage = (message) => shown.push(JSON.parse(message.data))
    one.ontrack = ({streams, track}) => {
      const sink = new Audio()  // Chromium plays remote sound into WebAudio only when an element has it, too
      sink.muted = true
      sink.srcObject = new MediaStream([track])
      context = context || new AudioContext()
      analyser = context.createAnalyser()
      analyser.fftSize = 8192
      context.createMediaStreamSource(sink.srcObject).connect(analyser)
    }
    return one
  }

  async function offered(one, options) {
    await one.setLocalDescription(await one.createOffer(options))
    await new Promise((done) => {
      const look = () => one.iceGatheringState === "complete" && done()
      one.onicegatheringstatechange = look
      look()
    })
    return one.localDescription.sdp
  }

  async function call(to, token, options) {
    peer = await made(options)
    const headers = {"Content-Type": "application/sdp", Authorization: `Bearer ${token}`}
    const response = await fetch(`/webrtc/${to}`, {method: "POST", headers, body: await offered(peer)})
    const answer = await response.text()
    if (response.status !== 201) return response.status
    location_ = response.headers.get("Location")
    etag = response.headers.get("ETag")
    await peer.setRemoteDescription({type: "answer", sdp: answer})
    return response.status
  }

  async function restart(anew) {
    const before = peer
    if (anew) peer = await made()
    const headers = {"Content-Type": "application/sdp", "If-Match": etag}
    const sdp = await offered(peer, anew ? undefined : {iceRestart: true})
    const response = await fetch(location_, {method: "PATCH", headers, body: sdp})
    etag = response.headers.get("ETag")
    await peer.setRemoteDescription({type: "answer", sdp: await response.text()})
    if (anew) before.close()
    return response.status
  }

  function level(hz) {
    if (!analyser) return 0
    const decibels = new Float32Array(analyser.frequencyBinCount)
    analyser.getFloatFrequencyData(decibels)
    const powers = decibels.map((each) => 10 ** (each / 10))
    const total = powers.reduce((sum, each) => sum + each, 0)
    const at = Math.round(hz * analyser.fftSize / context.sampleRate)
    return powers.slice(at - 3, at + 4).reduce((sum, each) => sum + each, 0) / (total || 1)
  }

  async function codec() {
    const stats = [...(await peer.getStats()).values()]
    const inbound = stats.find((each) => each.type === "inbound-rtp")
    return (stats.find((each) => each.id === inbound?.codecId) || {}).mimeType
  }

  return {
    call, restart, level, codec, shown,
    press: (digits) => channel.send(JSON.stringify({digits})),
    channel: () => channel && channel.readyState,
    state: () => peer && peer.connectionState,
    close: () => peer.close(),
  }
})()
