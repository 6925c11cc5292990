// The player: what each event shows in the graph, the panel, the table and the controls.

import { Camera } from "./camera.js";
import { Controls } from "./controls.js";
import { byId, forgetColours, html, setText, svg } from "./elements.js";
import { Graph, widthOf } from "./graph.js";
import { Morph } from "./morph.js";
import { numberText, valueText } from "./numbers.js";
import { Panel } from "./panel.js";
import { SharedGradients } from "./shared.js";
import { Timeline } from "./timeline.js";
import { Words } from "./words.js";

class Player {
  constructor(story) {
    this.story = story;
    this.timeline = new Timeline(story);
    this.words = new Words(this.timeline);
    this.at = -1;
    this.drawGraph();
    const choose = { hover: (element, node) => this.linkToBox(element, node) };
    this.panel = new Panel(byId("panel"), this.timeline, this.words, choose, (node) => this.copies(node));
    this.shared = new SharedGradients(byId("shared"), this.timeline, choose);
    this.controls = new Controls(this.timeline, (at) => this.go(at));
    this.connect();
    this.drawLegend();
    this.camera.show(this.graph.picture.bounds, false);
    this.go(0);
  }

  drawGraph() {
    const { story } = this;
    this.graph = new Graph(story.picture, story.looks);
    const world = svg("g", { class: "world" }, this.graph.layer);
    byId("graph").append(world);
    this.camera = new Camera(byId("view"), byId("graph"), world);
    this.morph = new Morph(story, this.graph, world, this.camera);
    this.boxesOf = new Map();
    for (const drawn of this.graph.boxes) {
      const { node } = drawn.box;
      if (!this.boxesOf.has(node)) this.boxesOf.set(node, []);
      this.boxesOf.get(node).push(drawn);
    }
    this.wireOf = new Map();
    for (const drawn of this.graph.wires) {
      for (const [reader, operand] of drawn.wire.carries ?? []) this.wireOf.set(`${reader} ${operand}`, drawn);
    }
  }

  connect() {
    for (const drawn of this.graph.boxes) {
      const { group } = drawn;
      group.addEventListener("click", () => this.camera.dragged || this.visit(drawn.box.node));
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter") this.visit(drawn.box.node);
      });
      group.addEventListener("pointerenter", () => this.showTip(drawn));
      group.addEventListener("focus", () => {
        if (group.matches(":focus-visible")) this.camera.reveal(bounds([drawn]));
        this.showTip(drawn);
      });
      group.addEventListener("pointerleave", () => this.hideTip());
      group.addEventListener("blur", () => this.hideTip());
    }
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.hideTip());
    byId("theme").addEventListener("click", () => this.switchTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  // How to read the graph, in each of the two passes.
  drawLegend() {
    byId("legend").append(
      during("forward", sign("now", "computed now"), sign("source", "what it reads"), sign("later", "not computed yet")),
      during("backward", sign("now", "passes its gradient on"), sign("source", "receives it"), this.widths()),
    );
  }

  // What the width of an edge says in the backward pass.
  widths() {
    const { largest } = this.timeline;
    const samples = [1, 0.1, 0.01].flatMap((share) => {
      const line = svg("path", { d: "M2 8H30", fill: "none", stroke: "var(--gradient)", "stroke-width": widthOf(share) });
      return [svg("svg", { width: 32, height: 16, "aria-hidden": "true" }, line), word(numberText(Number((share * largest).toPrecision(2))))];
    });
    return html("span", { class: "widths" }, word("its size:"), ...samples);
  }

  // --- events ------------------------------------------------------------------------------------

  go(wanted) {
    const at = Math.min(Math.max(wanted, 0), this.timeline.last);
    if (at === this.at) return;
    const first = this.at < 0;
    this.at = at;
    const event = this.timeline.events[at];
    const backward = this.timeline.isBackward(at);
    document.documentElement.dataset.at = String(at);
    document.documentElement.dataset.pass = backward ? "backward" : "forward";
    const { active, sources, wires } = this.actors(event);
    this.showBoxes(at, backward, active, sources);
    this.showWires(at, backward, wires);
    this.graph.showFlow([...wires], backward);
    this.morph.show(active, sources, (drawn) => this.valueAt(drawn.box.node, at), this.story.nodes[event.node]?.t);
    this.panel.show(at);
    this.shared.show(at);
    this.controls.show(at);
    this.hideTip();
    setText(byId("live"), first ? "" : this.words.spoken(at));
    this.follow(event, active, sources);
  }

  // The copies of a node, one per timestep.
  copies(node) {
    const [drawn] = this.boxesOf.get(node) ?? [];
    if (drawn === undefined) return [node];
    const base = drawn.box.id.replace(/t\d+$/, "t");
    return this.story.picture.boxes.filter((box) => box.id.replace(/t\d+$/, "t") === base).map((box) => box.node);
  }

  // The boxes and edges of an event: what acts, and what it reads or passes its gradient to.
  actors(event) {
    const active = new Set(event.node === undefined ? [] : this.boxesOf.get(event.node) ?? []);
    const operands =
      event.pass === "forward"
        ? (this.story.nodes[event.node].operands ?? []).map((node, operand) => ({ node, operand }))
        : event.to ?? [];
    const sources = new Set(operands.flatMap(({ node }) => this.boxesOf.get(node) ?? []));
    const wires = new Set(operands.map(({ operand }) => this.wireOf.get(`${event.node} ${operand}`)).filter(Boolean));
    return { active, sources, wires };
  }

  valueAt(node, at) {
    return this.timeline.isComputed(node, at) ? this.story.nodes[node].value : undefined;
  }

  showBoxes(at, backward, active, sources) {
    const { timeline } = this;
    for (const drawn of this.graph.boxes) {
      const { node } = drawn.box;
      const value = this.valueAt(node, at);
      const gradient = timeline.gradient(node, at);
      const known = backward ? gradient !== undefined : value !== undefined;
      const whole = backward && known && timeline.arrived(node, at) === timeline.arrivals[node].length;
      const role = active.has(drawn) ? "active" : sources.has(drawn) ? "source" : "";
      const classes = [known ? "known" : "waiting", whole && "whole", role].filter(Boolean).join(" ");
      const same = drawn.told === value && drawn.toldGradient === gradient;
      const label = same && drawn.label !== undefined ? drawn.label : this.label(drawn, value, gradient);
      drawn.told = value;
      drawn.toldGradient = gradient;
      this.graph.showBox(drawn, classes, value, gradient, label);
    }
  }

  label(drawn, value, gradient) {
    const { node, rows } = drawn.box;
    const name = node < 0 ? rows[0][2] : this.story.nodes[node].symbol;
    const known = value === undefined ? "not computed yet" : `value ${valueText(value)}`;
    return `${name}, ${drawn.box.kind}, ${known}${gradient === undefined ? "" : `, gradient ${valueText(gradient)}`}`;
  }

  showWires(at, backward, used) {
    const { timeline } = this;
    for (const drawn of this.graph.wires) {
      let size = null;
      let read = false;
      for (const [reader, operand] of drawn.wire.carries ?? []) {
        const passed = backward ? timeline.passed(reader, operand) : null;
        if (passed !== null && passed.at <= at) size = Math.max(size ?? 0, passed.size);
        read ||= timeline.isComputed(reader, at);
      }
      const state = backward ? (size === null ? "waiting" : "gradient") : read ? "known" : "waiting";
      this.graph.showWire(drawn, used.has(drawn) ? `${state} used` : state, size === null ? null : size / (timeline.largest || 1));
    }
  }

  // --- the camera --------------------------------------------------------------------------------

  follow(event, active, sources) {
    if (active.size === 0) {
      if (this.camera.following) this.camera.show(this.camera.bounds);
      return;
    }
    if (!this.started) {
      this.started = true;
      if (this.camera.isTiny) this.camera.follow(true);
    }
    if (this.morph.isRolled) {
      this.camera.keepInView(this.morph.boundsOf(active));
      return;
    }
    let near = bounds([...active]);
    const away = (drawn) => Math.hypot(drawn.box.at[0] - near[0] - near[2] / 2, drawn.box.at[1] - near[1] - near[3] / 2);
    for (const drawn of [...sources].toSorted((a, b) => away(a) - away(b))) {
      const wider = bounds([...active, drawn], near);
      if (this.camera.hasRoomFor(wider)) near = wider;
    }
    this.camera.keepInView(near);
  }

  // --- what a reader points at -------------------------------------------------------------------

  visit(node) {
    if (node < 0 || this.morph.isRolled) return;
    const { computedAt, passedAt } = this.timeline;
    const backward = this.timeline.isBackward(this.at) && passedAt[node] !== Infinity;
    this.controls.move(backward ? passedAt[node] : computedAt[node]);
  }

  linkToBox(element, node) {
    const mark = (on) => {
      for (const drawn of this.boxesOf.get(node) ?? []) drawn.group.classList.toggle("pointed", on);
    };
    element.addEventListener("pointerenter", () => mark(true));
    element.addEventListener("pointerleave", () => mark(false));
  }

  showTip(drawn) {
    const { node } = drawn.box;
    if (node < 0) return;
    const { symbol, expression } = this.story.nodes[node];
    const value = this.valueAt(node, this.at);
    const gradient = this.timeline.gradient(node, this.at);
    const waiting = this.timeline.arrivals[node].length - this.timeline.arrived(node, this.at);
    const made = expression === undefined ? drawn.box.kind : this.words.plain(expression);
    const lines = [
      made === symbol ? symbol : `${symbol} = ${made}`,
      `value ${value === undefined ? "not computed yet" : this.words.value(node)}`,
    ];
    if (gradient !== undefined) lines.push(`gradient ${valueText(gradient)}${waiting > 0 ? `, ${waiting} more to come` : ""}`);
    else if (this.story.nodes[node].unreached) lines.push("no gradient: the result does not depend on it, or it needs none");
    const tip = byId("tip");
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
    tip.hidden = false;
    const stage = byId("view").getBoundingClientRect();
    const box = drawn.group.getBoundingClientRect();
    const x = Math.min(Math.max(box.left - stage.left + box.width / 2 - tip.offsetWidth / 2, 4), stage.width - tip.offsetWidth - 4);
    const above = box.top - stage.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(x, 4)}px`;
    tip.style.top = `${above > 4 ? above : box.bottom - stage.top + 8}px`;
  }

  hideTip() {
    byId("tip").hidden = true;
  }

  // --- looks -------------------------------------------------------------------------------------

  switchTheme() {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--scheme").trim() === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    this.recolour();
  }

  recolour() {
    forgetColours();
    this.panel.show(this.at);
    for (const row of this.shared.rows) row.shown = -1;
    this.shared.show(this.at);
  }
}

function during(pass, ...parts) {
  return html("span", { class: `during-${pass}` }, ...parts);
}

function word(text) {
  return html("span", {}, text);
}

function sign(kind, text) {
  return html("span", { class: "sample" }, html("i", { class: `mark ${kind}`, "aria-hidden": "true" }), text);
}

// The rectangle around some boxes, and around another rectangle.
function bounds(boxes, around = null) {
  const xs = boxes.flatMap(({ box: { at } }) => [at[0] - at[2] / 2, at[0] + at[2] / 2]);
  const ys = boxes.flatMap(({ box: { at } }) => [at[1] - at[3] / 2, at[1] + at[3] / 2]);
  if (around !== null) {
    xs.push(around[0], around[0] + around[2]);
    ys.push(around[1], around[1] + around[3]);
  }
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  return [left, top, Math.max(...xs) - left, Math.max(...ys) - top];
}

new Player(JSON.parse(byId("story").textContent));
