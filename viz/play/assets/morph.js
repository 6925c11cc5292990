// Rolled and unrolled: every copy of a node slides to the place of the one that it is a copy of.

import { byId, setText } from "./elements.js";
import { Graph } from "./graph.js";

export class Morph {
  constructor(story, graph, world, camera) {
    this.graph = graph;
    this.camera = camera;
    this.isRolled = false;
    this.unrolledBounds = graph.picture.bounds;
    this.button = byId("morph");
    if (story.rolled === null) return;
    this.rolled = new Graph(story.rolled, story.looks);
    this.rolled.layer.classList.add("rolled");
    this.centre();
    world.append(this.rolled.layer);
    this.rolledBox = new Map(this.rolled.boxes.map((drawn) => [drawn.box.id, drawn]));
    for (const drawn of this.rolled.boxes) {
      drawn.group.removeAttribute("tabindex");
      drawn.group.setAttribute("role", "img");
      drawn.group.setAttribute("aria-label", drawn.box.rows[0][2]);
    }
    this.button.hidden = false;
    this.button.addEventListener("click", () => this.toggle());
  }

  // The rolled picture lies in the middle of the unrolled one.
  centre() {
    const [left, top, width, height] = this.rolled.picture.bounds;
    const [x, y, w, h] = this.unrolledBounds;
    this.shift = [x + w / 2 - left - width / 2, y + h / 2 - top - height / 2];
    this.rolled.layer.setAttribute("transform", `translate(${this.shift[0]} ${this.shift[1]})`);
    this.rolledBounds = [left + this.shift[0], top + this.shift[1], width, height];
  }

  // The one node of the rolled picture of which a box is a copy.
  original(drawn) {
    return this.rolledBox.get(drawn.box.id.replace(/t\d+$/, "t0"));
  }

  // Where the originals of some boxes stand.
  boundsOf(copies) {
    const [drawn] = copies;
    const [x, y, width, height] = this.original(drawn).box.at;
    return [x + this.shift[0] - width / 2, y + this.shift[1] - height / 2, width, height];
  }

  toggle() {
    this.isRolled = !this.isRolled;
    this.button.setAttribute("aria-pressed", String(this.isRolled));
    setText(this.button, this.isRolled ? "Unroll" : "Roll up");
    document.documentElement.classList.toggle("is-rolled", this.isRolled);
    for (const drawn of this.graph.boxes) {
      const target = this.original(drawn);
      const [x, y] = drawn.box.at;
      const style = drawn.content.style;
      style.transform =
        this.isRolled && target !== undefined
          ? `translate(${target.box.at[0] + this.shift[0] - x}px, ${target.box.at[1] + this.shift[1] - y}px)`
          : "";
    }
    this.moveFrames();
    this.camera.show(this.isRolled ? this.rolledBounds : this.unrolledBounds);
  }

  moveFrames() {
    const [target] = this.rolled.picture.frames;
    this.graph.frames.forEach((group, i) => {
      const { at } = this.graph.picture.frames[i];
      const dx = target.at[0] + target.at[2] / 2 + this.shift[0] - at[0] - at[2] / 2;
      const dy = target.at[1] + target.at[3] / 2 + this.shift[1] - at[1] - at[3] / 2;
      group.style.transform = this.isRolled ? `translate(${dx}px, ${dy}px)` : "";
    });
  }

  // Mark in the rolled picture what is marked in the unrolled one; `valueOf` tells what a box holds.
  show(active, sources, valueOf, t) {
    if (this.rolled === undefined) return;
    this.rolled.frames.forEach((group, i) => {
      setText(group.lastChild, t === undefined ? this.rolled.picture.frames[i].label : `now t = ${t}`);
    });
    const copies = new Map();
    for (const drawn of sources) copies.set(this.original(drawn), ["source", drawn]);
    for (const drawn of active) copies.set(this.original(drawn), ["active", drawn]);
    for (const original of this.rolled.boxes) {
      const [role, drawn] = copies.get(original) ?? ["", null];
      const value = drawn === null ? undefined : valueOf(drawn);
      this.rolled.showBox(original, role, value, undefined, original.box.rows[0][2]);
    }
  }
}
