// The microphone to 20 ms of L16 at 16 kHz, and such sound to the loudspeaker. Resampling is linear and does nothing
// when the context runs at 16 kHz, which the page asks for.
const RATE_HZ = 16000;
const FRAME = 320;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.at = 0;
    this.last = 0;
  }

  process(inputs) {
    const input = inputs[0][0];
    if (!input) return true;
    const step = sampleRate / RATE_HZ;
    while (this.at < input.length) {
      const index = Math.floor(this.at);
      const before = index > 0 ? input[index - 1] : this.last;
      const value = before + (input[index] - before) * (this.at - index);
      this.frame[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === FRAME) {
        this.port.postMessage(this.frame);
        this.filled = 0;
      }
      this.at += step;
    }
    this.at -= input.length;
    this.last = input[input.length - 1];
    return true;
  }
}

// Begins when START_MS wait, or when what waits has waited so long; holds MOST_MS at most and drops the oldest then.
const START_MS = 60;
const MOST_MS = 8000;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.waiting = 0;
    this.at = 0;
    this.last = 0;
    this.current = 0;
    this.running = false;
    this.patience = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.clear) {
      for (const item of this.queue) if (item.mark) this.port.postMessage(item.mark);
      this.queue = [];
      this.waiting = 0;
      this.at = 0;
      this.running = false;
      return;
    }
    this.queue.push(message);
    if (message.samples) this.waiting += message.samples.length;
    while (this.waiting > MOST_MS * 16) {
      const item = this.queue.shift();
      if (item.mark) this.port.postMessage(item.mark);
      else this.waiting -= item.samples.length - this.at, this.at = 0;
    }
  }

  next() {
    while (this.queue.length) {
      const item = this.queue[0];
      if (item.mark) {
        this.port.postMessage(item.mark);
        this.queue.shift();
      } else if (this.at < item.samples.length) {
        this.waiting--;
        return item.samples[this.at++] / 32768;
      } else {
        this.queue.shift();
        this.at = 0;
      }
    }
    return null;
  }

  process(_inputs, outputs) {
    const output = outputs[0][0];
    if (!this.running) {
      this.patience += output.length / sampleRate * 1000;
      if (!this.queue.length) this.patience = 0;
      if (this.waiting < START_MS * 16 && this.patience < START_MS) return true;
      this.running = true;
      this.patience = 0;
      this.phase = 1;
    }
    const step = RATE_HZ / sampleRate;
    for (let index = 0; index < output.length; index++) {
      this.phase += step;
      while (this.phase >= 1) {
        this.phase -= 1;
        const sample = this.next();
        if (sample === null) this.running = false;
        this.last = this.current;
        this.current = sample ?? 0;
      }
      output[index] = step === 1 ? this.current : this.last + (this.current - this.last) * this.phase;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
