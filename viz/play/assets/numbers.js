// Numbers as they are written, as in the pictures: four significant digits, a real minus sign.

const DIGITS = 4;

export function isArray(value) {
  return typeof value === "object" && value !== null;
}

export function numberText(x) {
  if (typeof x === "string") return x.replace("-", "−").replace("inf", "∞");
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x).replace("-", "−");
  const [mantissa, exponent] = x.toExponential(DIGITS - 1).split("e");
  const power = Number(exponent);
  if (power < -4 || power >= DIGITS) {
    const sign = power < 0 ? "−" : "+";
    return `${trimmed(mantissa)}e${sign}${String(Math.abs(power)).padStart(2, "0")}`.replace("-", "−");
  }
  return trimmed(x.toFixed(DIGITS - 1 - power)).replace("-", "−");
}

function trimmed(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// A number; of an array its Euclidean norm.
export function valueText(value) {
  return isArray(value) ? `‖${numberText(value.norm)}‖` : numberText(value);
}

export function shapeText(value) {
  if (value.shape.length === 0) return "a scalar";
  return value.shape.length === 1 ? `(${value.shape[0]},)` : value.shape.join(" × ");
}

// How large a number or an array is; 0 for what is no number.
export function magnitude(value) {
  const size = isArray(value) ? value.norm : value;
  return typeof size === "number" ? Math.abs(size) : 0;
}

// The sum of two arrays of which the norm is known.
export function sumOf(a, b, norm) {
  const cells = a.cells.map((row, i) => row.map((x, j) => Number(x) + Number(b.cells[i][j])));
  return { shape: a.shape, norm, cells };
}

// All digits, for programs that read the page.
export function exactly(value) {
  return String(isArray(value) ? value.norm : value);
}
