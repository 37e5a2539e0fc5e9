"use strict";
// Small live plots of the last ten minutes, drawn without a library: they have only two or three lines each.
const SPAN_S = 600;
const WIDTH = 600, HEIGHT = 100;
const SVG = document.querySelector("svg").namespaceURI;

function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  return element;
}
function roundUp(value) {
  // Round up to 1, 2 or 5 times a power of ten.
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

class Plot {
  // lines: [{key, label, look}]; the first one has an area below it. format: value -> text. Without a floor the scale
  // is linear from 0; with one it is logarithmic and begins at the floor or below.
  constructor(title, lines, format, floor) {
    this.floor = floor;
    this.lines = lines;
    this.format = format;
    this.samples = [];
    this.cursor = null;
    this.figure = put("figure");
    this.chart = put("div", null, "chart");
    this.chart.tabIndex = 0;
    this.chart.setAttribute("role", "img");
    this.title = title;
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.area = draw("path", { class: "area" });
    this.paths = lines.map((line) => draw("path", { class: line.look }));
    this.mark = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg.append(this.area, ...this.paths.slice().reverse(), this.mark);
    this.top = put("span", "", "top");
    this.bottom = put("span", "", "bottom");
    this.chart.append(this.svg, this.top, this.bottom);
    const times = put("div", null, "times");
    times.setAttribute("aria-hidden", "true");
    this.left = put("span", "10 min ago");
    this.right = put("span", "now");
    times.append(this.left, this.right);
    this.key = put("p", null, "key");
    this.values = lines.map((line) => {
      const entry = put("span");
      const sample = draw("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" });
      sample.append(draw("line", { x1: 1, x2: 23, y1: 4, y2: 4, class: line.look }));
      const value = put("b", "-");
      entry.append(sample, `${line.label} `, value);
      this.key.append(entry);
      return value;
    });
    this.figure.append(put("figcaption", title), this.chart, times, this.key);
    this.chart.addEventListener("pointermove", (event) => this.point((event.offsetX / this.chart.clientWidth) * SPAN_S - SPAN_S));
    this.chart.addEventListener("pointerleave", () => this.point(null));
    this.chart.addEventListener("blur", () => this.point(null));
    this.chart.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15 }[event.key];
      if (event.key === "Escape") this.point(null);
      if (!steps || !this.samples.length) return;
      event.preventDefault();
      this.point(Math.min(0, Math.max(-SPAN_S, (this.cursor === null ? 0 : this.cursor) + steps * this.interval)));
    });
  }
  update(samples, now, interval) {
    // samples: [{at, <key>: number | null}], the oldest first.
    this.samples = samples;
    this.now = now;
    this.interval = interval;
    const values = samples.flatMap((sample) => this.lines.map((line) => sample[line.key] || 0)).filter((value) => value > 0);
    const scale = this.floor ? 10 ** Math.ceil(Math.log10(Math.max(10 * this.floor, ...values)) - 1e-9) : roundUp(Math.max(0, ...values));
    const floor = this.floor ? 10 ** Math.floor(Math.log10(Math.min(this.floor, ...values))) : 0;
    const height = (value) => floor ? Math.log(Math.max(value, floor) / floor) / Math.log(scale / floor) : value / scale;
    const place = (sample, key) => [WIDTH * (1 - (now - sample.at) / SPAN_S), HEIGHT - 2 - (HEIGHT - 6) * height(sample[key])];
    this.lines.forEach((line, index) => {
      const runs = [];
      let last = null;
      for (const sample of samples) {
        if (sample[line.key] === null || sample[line.key] === undefined) { last = null; continue; }
        // Leave a gap where samples are missing: the Coordinator was away, and a line would claim values.
        if (last === null || sample.at - last > 3 * interval) runs.push([]);
        runs[runs.length - 1].push(place(sample, line.key));
        last = sample.at;
      }
      const text = (run) => `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}${run.length === 1 ? "h.01" : ""}`;
      this.paths[index].setAttribute("d", runs.map(text).join(""));
      if (index === 0) {
        this.area.setAttribute("d", runs.map((run) => `${text(run)}V${HEIGHT}H${run[0][0].toFixed(1)}Z`).join(""));
      }
    });
    this.top.textContent = this.format(scale);
    this.bottom.textContent = floor ? this.format(floor) : "";
    this.show();
  }
  point(seconds) {
    this.cursor = seconds;
    this.show();
  }
  show() {
    let sample = this.samples[this.samples.length - 1];
    if (this.cursor !== null && this.samples.length) {
      const at = this.now + this.cursor;
      sample = this.samples.reduce((best, one) => Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best);
    }
    const ago = this.cursor === null || !sample ? 0 : Math.round(this.now - sample.at);
    this.mark.setAttribute("visibility", this.cursor !== null && sample ? "visible" : "hidden");
    if (this.cursor !== null && sample) {
      const x = WIDTH * (1 - (this.now - sample.at) / SPAN_S);
      this.mark.setAttribute("x1", x);
      this.mark.setAttribute("x2", x);
    }
    this.right.textContent = ago ? `at ${Math.floor(ago / 60)}:${String(ago % 60).padStart(2, "0")} min ago` : "now";
    const said = this.lines.map((line, index) => {
      const value = sample ? sample[line.key] : null;
      const text = value === null || value === undefined ? "-" : this.format(value);
      this.values[index].textContent = text;
      return `${line.label} ${text === "-" ? "none" : text}`;
    });
    const when = ago ? `${ago} seconds ago` : "now";
    this.chart.setAttribute("aria-label", `${this.title}, ${when}: ${said.join(", ")}. Left and right arrows show earlier values.`);
  }
}
