// Elements of the page. All text becomes a text node: no name is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== "" && child !== false && child !== null && child !== undefined));
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let palette = null;

// The colours of a signed number, from the style sheet.
function colours() {
  if (palette === null) {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => {
      const hex = style.getPropertyValue(name).trim();
      return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    };
    palette = { negative: read("--negative"), zero: read("--zero"), positive: read("--positive") };
  }
  return palette;
}

export function forgetColours() {
  palette = null;
}

function signedColour(share) {
  const { negative, zero, positive } = colours();
  const end = share < 0 ? negative : positive;
  const part = Math.min(1, Math.abs(Number.isFinite(share) ? share : 0));
  return zero.map((from, i) => Math.round(from + part * (end[i] - from)));
}

// An array as a map of coloured cells, blue below zero and orange above.
export function heatMap(value, [width, height] = [280, 112]) {
  const rows = value.cells.length;
  const columns = rows === 0 ? 0 : value.cells[0].length;
  const canvas = html("canvas", { class: "map", role: "img", width: Math.max(columns, 1), height: Math.max(rows, 1) });
  canvas.setAttribute("aria-label", mapLabel(value, rows * columns));
  const size = Math.max(3, Math.min(14, Math.floor(width / Math.max(columns, 1)), Math.floor(height / Math.max(rows, 1))));
  canvas.style.width = `${columns * size}px`;
  canvas.style.height = `${Math.max(rows * size, 10)}px`;
  paint(canvas, value, largestOf(value));
  return canvas;
}

function paint(canvas, value, largest) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  let place = 0;
  for (const row of value.cells) {
    for (const cell of row) {
      image.data.set([...signedColour(Number(cell) / (largest || 1)), 255], place);
      place += 4;
    }
  }
  context.putImageData(image, 0, 0);
}

function largestOf(value) {
  let largest = 0;
  for (const row of value.cells) for (const x of row) if (Math.abs(x) > largest) largest = Math.abs(x);
  return largest;
}

function mapLabel(value, shown) {
  const all = value.shape.reduce((product, n) => product * n, 1);
  return shown < all ? `${shown} of ${all} elements` : `${all} elements`;
}
