// Small parts of the page: meters, lists, words for problems.
export const part = (id) => document.getElementById(id);

// Shows the level of one AnalyserNode; -60 dBFS is 0, 0 dBFS is 100.
export class Meter {
  constructor(element, analyser) {
    Object.assign(this, { element, analyser, told: 0, bar: element.firstElementChild });
    this.samples = new Float32Array(analyser.fftSize);
  }

  draw(now) {
    this.analyser.getFloatTimeDomainData(this.samples);
    const power = this.samples.reduce((sum, sample) => sum + sample * sample, 0) / this.samples.length;
    this.show(Math.max(0, Math.min(100, 100 + 10 * Math.log10(power + 1e-12) / 0.6)), now);
  }

  show(percent, now) {
    this.bar.style.transform = `scaleX(${percent / 100})`;
    if (now - this.told > 250 || percent === 0) {
      this.told = now;
      this.element.setAttribute("aria-valuenow", Math.round(percent));
    }
  }
}

// Adds a line to a list and keeps its end in sight; the oldest of 200 goes.
export function line(list, text, who = "") {
  const item = document.createElement("li");
  if (who) {
    item.className = who;
    const name = document.createElement("b");
    name.textContent = who === "caller" ? "You" : "Server";
    item.append(name);
  }
  item.append(text);
  list.append(item);
  while (list.children.length > 200) list.firstElementChild.remove();
  list.scrollTop = list.scrollHeight;
}

// What to do about a problem, in words for whoever wants to call.
export function advice(problem) {
  switch (problem.name) {
    case "NotAllowedError": return "The browser may not use the microphone. Allow it for this page (the lock beside the address), then call again.";
    case "NotFoundError": return "There is no microphone. Connect one, then call again.";
    case "NotReadableError": return "Another program holds the microphone. Close it, then call again.";
    case "TypeError": return "The server cannot be reached. Is it running? Call again when it is.";
    default: return problem.message || String(problem);
  }
}
