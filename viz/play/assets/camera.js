// The camera: fits, zooms, pans, and keeps in view what happens now.

import { byId } from "./elements.js";

const CLOSEST = 4;
const READABLE = 0.6; // a smaller picture is not shown as a whole while one steps through it
const CLOSE = 0.95;
const EDGE = 40;
const MARGIN = 14;

export const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Camera {
  constructor(stage, canvas, world) {
    this.stage = stage;
    this.canvas = canvas;
    this.world = world;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.bounds = [0, 0, 1, 1];
    this.following = false;
    this.fitted = true;
    this.pointers = new Map();
    this.moving = 0;
    this.connect();
  }

  connect() {
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    byId("zoom-in").addEventListener("click", () => this.zoomAtCentre(1.3));
    byId("zoom-out").addEventListener("click", () => this.zoomAtCentre(1 / 1.3));
    byId("fit").addEventListener("click", () => this.overview());
    byId("follow").addEventListener("click", () => this.follow(!this.following));
    new ResizeObserver(() => this.resized()).observe(this.stage);
  }

  get size() {
    return [this.stage.clientWidth, this.stage.clientHeight];
  }

  // The scale and place at which some bounds fill the stage.
  fitting([left, top, width, height]) {
    const [w, h] = this.size;
    const scale = Math.min(1.5, (w - 2 * MARGIN) / width, (h - 2 * MARGIN) / height);
    return { scale, x: w / 2 - scale * (left + width / 2), y: h / 2 - scale * (top + height / 2) };
  }

  show(bounds, animated = true) {
    this.bounds = bounds;
    this.fitted = true;
    this.moveTo(this.fitting(bounds), animated ? 600 : 0);
  }

  overview() {
    this.follow(false);
    this.show(this.bounds);
  }

  // Whether the whole picture is too small to be read.
  get isTiny() {
    return this.fitting(this.bounds).scale < READABLE;
  }

  follow(on) {
    this.following = on;
    byId("follow").setAttribute("aria-pressed", String(on));
    if (on && this.focus !== undefined) this.keepInView(this.focus);
  }

  get nearScale() {
    return Math.max(CLOSE, Math.min(1.2, this.fitting(this.bounds).scale));
  }

  // Whether a part of the picture fits into the view while one follows.
  hasRoomFor([, , width, height]) {
    const [w, h] = this.size;
    const scale = Math.max(this.target.scale, this.nearScale);
    return width * scale < w - 2 * EDGE && height * scale < h - 2 * EDGE;
  }

  // Move as little as needed to have a part of the picture in view; come closer where it cannot be read.
  keepInView(part) {
    this.focus = part;
    if (!this.following) return;
    const [w, h] = this.size;
    const scale = Math.max(this.target.scale, this.nearScale);
    const [left, top, width, height] = part;
    let { x, y } = this.target;
    if (scale !== this.target.scale) {
      x = w / 2 - scale * (left + width / 2);
      y = h / 2 - scale * (top + height / 2);
    }
    this.fitted = false;
    this.moveTo({ scale, x: within(x, scale * left, scale * width, w), y: within(y, scale * top, scale * height, h) }, 350);
  }

  // The same at the scale there is, whether one follows or not.
  reveal([left, top, width, height]) {
    const [w, h] = this.size;
    const { scale, x, y } = this.target;
    this.moveTo({ scale, x: within(x, scale * left, scale * width, w), y: within(y, scale * top, scale * height, h) }, 0);
  }

  resized() {
    if (this.fitted) this.show(this.bounds, false);
    else if (this.focus !== undefined) this.keepInView(this.focus);
  }

  moveTo(target, duration) {
    cancelAnimationFrame(this.moving);
    this.target = target;
    if (duration === 0 || calm.matches) {
      this.place(target.scale, target.x, target.y);
      return;
    }
    const from = { scale: this.scale, x: this.x, y: this.y };
    const start = performance.now();
    const frame = (now) => {
      const share = Math.min(1, Math.max(0, (now - start) / duration));
      const eased = share < 0.5 ? 4 * share ** 3 : 1 - (2 - 2 * share) ** 3 / 2;
      const mix = (a, b) => a + (b - a) * eased;
      this.place(mix(from.scale, target.scale), mix(from.x, target.x), mix(from.y, target.y));
      if (share < 1) this.moving = requestAnimationFrame(frame);
    };
    this.moving = requestAnimationFrame(frame);
  }

  place(scale, x, y) {
    this.scale = scale;
    this.x = x;
    this.y = y;
    this.world.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(4)})`);
  }

  zoomAtCentre(factor) {
    const [w, h] = this.size;
    this.zoom(factor, w / 2, h / 2);
  }

  zoom(factor, x, y) {
    const least = Math.min(0.1, this.fitting(this.bounds).scale / 2);
    const scale = Math.min(CLOSEST, Math.max(least, this.scale * factor));
    const change = scale / this.scale;
    this.fitted = false;
    if (scale < this.nearScale && factor < 1) this.follow(false);
    this.moveTo({ scale, x: x - change * (x - this.x), y: y - change * (y - this.y) }, 0);
  }

  wheel(event) {
    event.preventDefault();
    const { left, top } = this.stage.getBoundingClientRect();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.zoom(Math.exp(-event.deltaY * lines * 0.0016), event.clientX - left, event.clientY - top);
  }

  press(event) {
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.dragged = false;
  }

  drag(event) {
    const held = this.pointers.get(event.pointerId);
    if (held === undefined) return;
    const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
    if (this.pointers.size === 1 && !this.dragged && Math.hypot(dx, dy) < 4) return;
    if (!this.dragged) this.canvas.setPointerCapture(event.pointerId);
    this.dragged = true;
    const before = this.spread();
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.fitted = false;
    if (this.pointers.size === 1) {
      this.moveTo({ scale: this.scale, x: this.x + dx, y: this.y + dy }, 0);
      return;
    }
    const after = this.spread();
    const { left, top } = this.stage.getBoundingClientRect();
    this.moveTo({ scale: this.scale, x: this.x + after.x - before.x, y: this.y + after.y - before.y }, 0);
    this.zoom(after.distance / Math.max(before.distance, 1), after.x - left, after.y - top);
  }

  // The middle of two fingers, and how far they are apart.
  spread() {
    const [first, second = first] = [...this.pointers.values()];
    return {
      x: (first[0] + second[0]) / 2,
      y: (first[1] + second[1]) / 2,
      distance: Math.hypot(first[0] - second[0], first[1] - second[1]),
    };
  }
}

// The shift nearest to `shift` at which a span lies inside the room; its middle in the middle where it is too long.
function within(shift, start, length, room) {
  if (length > room - 2 * EDGE) return room / 2 - start - length / 2;
  return Math.min(Math.max(shift, EDGE - start), room - EDGE - start - length);
}
