// The graph in SVG. Each event touches only the boxes and edges whose state it changes.

import { setText, svg } from "./elements.js";
import { exactly, valueText } from "./numbers.js";

const CELL = 4;
const LEVELS = 6; // of colour on each side of zero
const LID = 5; // of a cylinder
const NUMBER_SIZE = 11; // in the room of "value" and "grad" with it
const THICKEST = 7;

export function cssName(kind) {
  return kind.replaceAll(" ", "-");
}

export class Graph {
  constructor(picture, looks) {
    this.picture = picture;
    this.looks = looks;
    this.layer = svg("g", { class: "layer" });
    this.frames = picture.frames.map((frame) => this.drawFrame(frame));
    this.wires = picture.wires.map((wire) => this.drawWire(wire));
    this.flow = svg("g", { class: "flow" });
    this.boxes = picture.boxes.map((box) => this.drawBox(box));
    this.layer.append(...this.frames, ...this.wires.map((wire) => wire.group), this.flow);
    this.layer.append(...this.inOrder().map((box) => box.group));
  }

  // Boxes in the order of computation, so that the keyboard visits them in it.
  inOrder() {
    return this.boxes.toSorted((a, b) => a.box.node - b.box.node);
  }

  drawFrame(frame) {
    const [x, y, width, height] = frame.at;
    return svg(
      "g",
      { class: "frame" },
      svg("rect", { x, y, width, height, rx: 8 }),
      svg("text", { x: frame.x, y: y + 15 }, frame.label),
    );
  }

  drawWire(wire) {
    const route = pathOf(wire.route);
    const line = svg("path", { class: "line", d: route });
    const [ahead, back] = headsOf(wire.route);
    const group = svg("g", { class: `wire wire-${cssName(wire.kind)}` }, line, ahead, back);
    if (wire.label !== undefined) {
      group.append(svg("text", { class: "wire-label", x: wire.at[0], y: wire.at[1] + 4 }, wire.label));
    }
    return { wire, group, line, back, route, shown: "", width: "" };
  }

  drawBox(box) {
    const [x, y, width, height] = box.at;
    const look = this.looks[box.kind];
    const outline = shapeOf(look, width, height);
    const halo = svg("rect", { class: "halo", x: -width / 2 - 7, y: -height / 2 - 7, width: width + 14, height: height + 14, rx: 12 });
    const content = svg("g", { class: "content" }, halo, ...outline);
    const drawn = { box, group: null, content, shown: "", value: null, gradient: null, extras: [] };
    this.writeRows(drawn, content);
    drawn.group = svg(
      "g",
      { class: `box kind-${cssName(box.kind)}`, transform: `translate(${x} ${y})`, tabindex: 0, role: "button" },
      content,
    );
    drawn.group.dataset.id = box.id;
    return drawn;
  }

  writeRows(drawn, content) {
    const { rows, at } = drawn.box;
    const heights = rows.map(([kind, size]) => (kind.endsWith("cells") ? size : 1.2 * size));
    const lid = this.looks[drawn.box.kind].shape === "cylinder" ? LID / 2 : 0; // the text stands below it
    let y = lid - heights.reduce((sum, height) => sum + height, 0) / 2;
    rows.forEach(([kind, size, what], i) => {
      const middle = y + heights[i] / 2;
      y += heights[i];
      if (kind.endsWith("cells")) {
        const strip = stripOf(what, middle);
        strip.setAttribute("class", kind === "value cells" ? "value-part cells" : "gradient-part cells");
        content.append(strip);
        return;
      }
      const text = svg("text", { x: 0, y: middle + 0.36 * size, "font-size": size, class: i === 0 ? "name" : "small" });
      if (kind === "text") text.append(what);
      else {
        text.classList.add(kind === "value" ? "value-part" : "gradient-part");
        text.setAttribute("font-size", NUMBER_SIZE);
        drawn[kind === "value" ? "value" : "gradient"] = { text, room: at[2] - 10 };
      }
      content.append(text);
    });
  }

  // Give a box its classes and numbers, where they differ from those it has.
  showBox(drawn, classes, value, gradient, label) {
    if (drawn.shown !== classes) {
      drawn.shown = classes;
      drawn.group.setAttribute("class", `box kind-${cssName(drawn.box.kind)} ${classes}`.trimEnd());
    }
    this.write(drawn, "value", value);
    this.write(drawn, "gradient", gradient);
    if (drawn.label !== label) {
      drawn.label = label;
      drawn.group.setAttribute("aria-label", label);
    }
  }

  write(drawn, part, number) {
    const held = drawn[part];
    if (held === null || held.number === number) return;
    held.number = number;
    const text = number === undefined ? "" : `${part === "value" ? "" : "∂ "}${valueText(number)}`;
    setText(held.text, text);
    const long = text.length * NUMBER_SIZE * 0.56 > held.room;
    if (long) held.text.setAttribute("textLength", held.room);
    else if (held.long) held.text.removeAttribute("textLength");
    held.long = long;
    if (number === undefined) delete drawn.group.dataset[part];
    else drawn.group.dataset[part] = exactly(number);
  }

  // Give an edge its classes and, where gradients flow, a width for their size, from 0 to 1.
  showWire(drawn, classes, share) {
    if (drawn.shown !== classes) {
      drawn.shown = classes;
      drawn.group.setAttribute("class", `wire wire-${cssName(drawn.wire.kind)} ${classes}`);
    }
    const width = share === null ? "" : String(widthOf(share));
    if (drawn.width !== width) {
      drawn.width = width;
      drawn.line.style.strokeWidth = width === "" ? "" : `${width}px`;
      drawn.group.style.setProperty("--share", share === null ? "" : share.toFixed(3));
      drawn.back.style.transform = width === "" ? "" : `${drawn.back.dataset.place} scale(${(0.8 + width / 6).toFixed(2)})`;
    }
  }

  // Dashes that run along some edges, against the arrows where gradients flow.
  showFlow(wires, backward) {
    this.flow.replaceChildren(
      ...wires.map((drawn) => {
        const path = svg("path", { d: drawn.route, class: backward ? "against" : "along" });
        if (drawn.width !== "") path.style.strokeWidth = `${Math.max(1.6, drawn.width * 0.4)}px`;
        return path;
      }),
    );
  }
}

// Square root, so that the small ones can be told apart too.
export function widthOf(share) {
  return Math.round((1 + (THICKEST - 1) * Math.sqrt(share)) * 100) / 100;
}

function pathOf(route) {
  let path = `M${route[0]} ${route[1]}`;
  for (let i = 2; i < route.length; i += 6) path += `C${route.slice(i, i + 6).join(" ")}`;
  return path;
}

// The arrowhead of the data at the end of a route, and that of the gradient at its start.
function headsOf(route) {
  const end = route.length;
  const ahead = arrowHead(route[end - 2], route[end - 1], route, end - 4, -2, "ahead");
  const back = arrowHead(route[0], route[1], route, 2, 2, "against");
  return [ahead, back];
}

function arrowHead(x, y, route, from, stride, name) {
  let i = from;
  while (i > 0 && i < route.length - 2 && Math.hypot(x - route[i], y - route[i + 1]) < 1) i += stride;
  const angle = (Math.atan2(y - route[i + 1], x - route[i]) * 180) / Math.PI;
  const place = `translate(${x}px, ${y}px) rotate(${angle.toFixed(1)}deg)`;
  const head = svg("path", { class: `head ${name}`, d: "M0 0L-9 -4L-9 4Z" });
  head.dataset.place = place;
  head.style.transform = place;
  return head;
}

function shapeOf(look, width, height) {
  const shapes = [];
  for (let ring = 0; ring < look.rings; ring += 1) {
    const w = width - 8 * ring;
    const h = height - 8 * ring;
    const plain = { class: ring === 0 ? "shape" : "shape inner" };
    if (look.dashed) plain["stroke-dasharray"] = "5 3";
    const rect = { ...plain, x: -w / 2, y: -h / 2, width: w, height: h };
    if (look.shape === "ellipse") shapes.push(svg("ellipse", { ...plain, rx: w / 2, ry: h / 2 }));
    else if (look.shape === "hexagon") shapes.push(svg("path", { ...plain, d: hexagon(w / 2, h / 2) }));
    else if (look.shape === "cylinder") shapes.push(...cylinder(plain, w / 2, h / 2));
    else shapes.push(svg("rect", { ...rect, rx: look.rounded ? 6 : 0 }));
  }
  return shapes;
}

function hexagon(x, y) {
  const slant = Math.min(14, x / 3);
  return `M${-x} 0L${slant - x} ${-y}L${x - slant} ${-y}L${x} 0L${x - slant} ${y}L${slant - x} ${y}Z`;
}

function cylinder(plain, x, y) {
  const lid = Math.min(LID, y / 4);
  const side = `M${-x} ${lid - y}V${y - lid}A${x} ${lid} 0 0 0 ${x} ${y - lid}V${lid - y}`;
  const rim = `A${x} ${lid} 0 0 0 ${-x} ${lid - y}`;
  return [
    svg("path", { ...plain, d: `${side}${rim}Z` }),
    svg("ellipse", { class: `${plain.class} lid`, cy: lid - y, rx: x, ry: lid }),
  ];
}

// An array as a row of cells; those of one colour are one path, since a page may have thousands of cells.
function stripOf(shares, middle) {
  const left = (-shares.length * CELL) / 2;
  const paths = new Map();
  shares.forEach((share, i) => {
    const level = Math.round(share * LEVELS);
    if (level !== 0) paths.set(level, `${paths.get(level) ?? ""}M${left + i * CELL} ${middle - 4}h${CELL}v8h-${CELL}z`);
  });
  const edge = { class: "edge", x: left - 0.5, y: middle - 4.5, width: shares.length * CELL + 1, height: 9 };
  const strip = svg("g", {}, svg("rect", edge));
  for (const [level, d] of paths) {
    const cells = svg("path", { d });
    cells.style.fill = `color-mix(in srgb, var(--${level < 0 ? "negative" : "positive"}) ${(100 * Math.abs(level)) / LEVELS}%, var(--zero))`;
    strip.append(cells);
  }
  return strip;
}
