// The panel: the event in words and numbers.

import { heatMap, html } from "./elements.js";
import { exactly, isArray, magnitude, numberText, shapeText, valueText } from "./numbers.js";

const MOST_CARDS = 6;

export class Panel {
  constructor(element, timeline, words, choose, copies) {
    this.copies = copies;
    this.element = element;
    this.timeline = timeline;
    this.words = words;
    this.nodes = timeline.story.nodes;
    this.choose = choose;
  }

  show(at) {
    const event = this.timeline.events[at];
    const tell = { start: "start", forward: "forward", seed: "seed", backward: "backward", end: "end" }[event.pass];
    this.at = at;
    this.element.replaceChildren(...this[tell](event).filter(Boolean));
    this.element.scrollTop = 0;
  }

  // --- parts -------------------------------------------------------------------------------------

  heading(pass, node, title) {
    const when = node === null ? "" : this.words.when(node);
    const name = { forward: "Forward pass", backward: "Backward pass" }[pass];
    return html(
      "div",
      { class: `heading ${pass}` },
      html("p", { class: "pass" }, name, when && html("span", { class: "when" }, when)),
      html("h2", {}, title),
    );
  }

  why(...sentences) {
    const text = sentences.filter(Boolean).join(" ");
    return text && html("p", { class: "why" }, text);
  }

  // A node in a formula: point at it to see where it stands.
  symbol(node, brackets = false) {
    if (node < 0) return "…";
    const { symbol, compound, kind } = this.nodes[node];
    const text = brackets && compound ? `(${symbol})` : symbol;
    const span = html("span", { class: `symbol${kind ? ` kind-${kind.replaceAll(" ", "-")}` : ""}` }, text);
    this.choose.hover(span, node);
    return span;
  }

  // ∂loss/∂node.
  partial(node, of = this.timeline.story.root) {
    const label = `∂${this.nodes[of].symbol}/∂${this.nodes[node].symbol}`;
    return html(
      "span",
      { class: "fraction", role: "math", "aria-label": label },
      html("span", {}, "∂", this.symbol(of, true)),
      html("span", {}, "∂", this.symbol(node, true)),
    );
  }

  pieces(pieces) {
    return pieces.map((piece) => {
      if (typeof piece === "string") return piece;
      return piece[2] ? this.partial(piece[0]) : this.symbol(piece[0], piece[1] === 1);
    });
  }

  // The same with numbers in the places of the nodes; null where one is an array.
  numbers(pieces) {
    const parts = pieces.map((piece) => {
      if (typeof piece === "string") return piece;
      const value = piece[0] < 0 ? undefined : this.nodes[piece[0]].value;
      if (value === undefined || isArray(value)) return null;
      return this.number(value, piece[1] === 1);
    });
    return parts.includes(null) || !parts.some((part) => typeof part !== "string") ? null : parts;
  }

  number(value, brackets = false) {
    const text = valueText(value);
    const span = html("span", { class: "number" }, brackets && text.startsWith("−") ? `(${text})` : text);
    span.dataset.exact = exactly(value);
    return span;
  }

  // Lines that begin with a sign: "h = tanh(a)", "= tanh(0.34)", "= 0.327".
  equation(left, ...lines) {
    const rows = lines.filter(Boolean).map(([sign, ...content], i) => [
      html("span", { class: "left" }, ...(i === 0 ? left : [])),
      html("span", { class: "sign" }, sign),
      html("span", { class: "right" }, ...content),
    ]);
    return html("div", { class: "equation" }, ...rows.flat());
  }

  result(value) {
    const number = this.number(value);
    number.classList.add("result");
    return number;
  }

  // An array in an equation.
  array(value, kind = "") {
    return html(
      "figure",
      { class: `inline ${kind}` },
      heatMap(value),
      html("figcaption", { class: "shape" }, `${shapeText(value)}, norm ${numberText(value.norm)}`),
    );
  }

  // Arrays as maps, each with its name, shape and norm.
  maps(...rows) {
    const shown = rows.filter(([, value]) => value !== undefined && isArray(value));
    if (shown.length === 0) return null;
    return html(
      "div",
      { class: "maps" },
      ...shown.map(([label, value, kind]) =>
        html(
          "figure",
          { class: kind ?? "" },
          html(
            "figcaption",
            {},
            html("span", { class: "of" }, ...[label].flat()),
            html("span", { class: "shape" }, `${shapeText(value)} · ‖·‖ = ${numberText(value.norm)}`),
          ),
          heatMap(value),
        ),
      ),
    );
  }

  // --- events ------------------------------------------------------------------------------------

  start() {
    const { story } = this.timeline;
    const unrolled = story.steps > 0;
    const about = unrolled
      ? `One network, ${story.steps} timesteps: the same nodes again and again, with the same weights.`
      : "Every node is one operation; arrows carry values.";
    const given = this.nodes.map((_, i) => i).filter((i) => this.timeline.computedAt[i] === 0 && this.nodes[i].kind);
    return [
      this.heading("forward", null, "Before the first step"),
      this.why(about, "Going forward, values flow along the arrows."),
      this.timeline.hasBackward &&
        this.why(
          "Going backward, gradients flow against them: each node multiplies the gradient that reaches it by its " +
            "local derivative, and hands the product on.",
        ),
      story.note && html("p", { class: "note" }, story.note),
      given.length > 0 &&
        html(
          "dl",
          { class: "given" },
          ...given.slice(0, 12).flatMap((i) => [html("dt", {}, this.symbol(i)), html("dd", {}, this.briefly(this.nodes[i].value))]),
        ),
      html("p", { class: "keys" }, ...keys()),
    ];
  }

  briefly(value) {
    return isArray(value) ? `${shapeText(value)}, norm ${numberText(value.norm)}` : this.number(value);
  }

  forward({ node }) {
    const { symbol, expression, value, operands } = this.nodes[node];
    const isWritten = expression !== undefined && this.words.plain(expression) !== symbol;
    const right = expression === undefined ? null : this.pieces(expression);
    const numbers = expression === undefined ? null : this.numbers(expression);
    const result = ["=", isArray(value) ? this.array(value) : this.result(value)];
    const lines = isWritten ? [["=", ...right]] : [];
    return [
      this.heading("forward", node, symbol),
      this.why(this.words.forward(node)),
      this.equation([this.symbol(node)], ...lines, numbers && ["=", ...numbers], result),
      this.maps(
        ...[...new Set(operands ?? [])].filter((x) => x >= 0).slice(0, 4).map((x) => [this.symbol(x), this.nodes[x].value]),
      ),
    ];
  }

  seed({ node, seed }) {
    const { symbol } = this.nodes[node];
    return [
      this.heading("backward", node, `∂${symbol}/∂${symbol}`),
      this.why(
        `How does ${symbol} change when ${symbol} changes? By as much: this gradient is the seed.`,
        "From here gradients flow against the arrows, to every node the result depends on.",
      ),
      this.equation([this.partial(node)], ["=", isArray(seed) ? this.array(seed) : this.result(seed)]),
    ];
  }

  backward({ node, to }) {
    const { symbol } = this.nodes[node];
    const gradient = this.timeline.gradient(node, this.at);
    const cards = to.slice(0, MOST_CARDS).map((each) => this.card(node, gradient, each));
    return [
      this.heading("backward", node, symbol),
      this.why(this.words.reads(node)),
      this.arriving(node, gradient),
      this.why(this.words.backward(node)),
      ...cards,
      this.nodes[node].op === "delay" && this.wayBack(node),
      to.length > MOST_CARDS && html("p", { class: "more" }, `… and ${to.length - MOST_CARDS} more, in the same way.`),
    ];
  }

  // The gradient that has reached a node: the sum of what its readers passed on.
  arriving(node, gradient) {
    const arrivals = this.timeline.arrivals[node];
    const terms = arrivals.length > 1 && !isArray(gradient) ? this.terms(arrivals) : null;
    return html(
      "div",
      { class: "arriving" },
      html("p", { class: "label" }, "arrives here"),
      this.equation([this.partial(node)], terms && ["=", ...terms], ["=", isArray(gradient) ? this.array(gradient, "gradient-map") : this.result(gradient)]),
    );
  }

  terms(arrivals) {
    return arrivals.slice(0, 6).flatMap((arrival, i) => {
      const sign = i > 0 ? " + " : "";
      const from = arrival.from < 0 ? "the seed" : `from ${this.nodes[arrival.from].symbol}`;
      return [sign, html("span", { class: "term" }, this.number(arrival.added, i > 0), html("small", {}, from))];
    });
  }

  card(node, gradient, each) {
    const arrival = this.timeline.arrivals[each.node].find((a) => a.at === this.at && a.operand === each.operand);
    const scalar = !isArray(each.added) && !isArray(gradient);
    return html(
      "article",
      { class: "card" },
      html("h3", {}, html("span", { class: "label" }, "passes on to "), this.symbol(each.node)),
      ...(scalar ? this.scalarProduct(node, gradient, each) : this.arrayProduct(node, each)),
      this.total(each.node, arrival),
    );
  }

  scalarProduct(node, gradient, { node: operand, local, formula, added, rule }) {
    if (local === undefined) return this.arrayProduct(node, { rule, added });
    const numbers = this.numbers(formula ?? []);
    const plain = (formula ?? []).length === 1 && typeof formula[0] === "string" && formula[0] === numberText(local);
    return [
      html("p", { class: "label" }, "local derivative"),
      this.equation(
        [this.partial(operand, node)],
        (formula ?? []).length > 0 && !plain && ["=", ...this.pieces(formula)],
        numbers && numbers.length > 1 && ["=", ...numbers],
        ["=", this.number(local)],
      ),
      html("p", { class: "label" }, "incoming gradient × local derivative"),
      html("p", { class: "product" }, this.number(gradient), " × ", this.number(local, true), " = ", this.result(added)),
    ];
  }

  arrayProduct(node, { node: operand, local, formula, rule, added }) {
    const sum = ["=", isArray(added) ? this.array(added, "gradient-map") : this.result(added)];
    const isOne = formula?.length === 1 && formula[0] === "1";
    if (!isArray(local) || isOne) {
      const written = (rule ?? []).length > 0 && ["=", ...this.pieces(rule)];
      return [this.equation([html("span", { class: "label" }, "adds")], written, sum)];
    }
    return [
      html("p", { class: "label" }, "local derivative, element by element"),
      this.equation([this.partial(operand, node)], formula.length > 0 && ["=", ...this.pieces(formula)], ["=", this.array(local)]),
      html("p", { class: "label" }, "incoming gradient ⊙ local derivative"),
      this.equation([], sum),
    ];
  }

  // How the gradient of a state has grown or shrunk from timestep to timestep.
  wayBack(node) {
    const known = this.copies(node)
      .filter((copy) => copy >= 0 && this.timeline.gradient(copy, this.at) !== undefined)
      .map((copy) => ({ copy, size: magnitude(this.timeline.gradient(copy, this.at)), at: this.timeline.arrivals[copy][0].at }))
      .toSorted((a, b) => a.at - b.at);
    if (known.length < 2) return null;
    const largest = Math.max(...known.map(({ size }) => size)) || 1;
    const rows = known.slice(-10).flatMap(({ copy, size }, i, all) => {
      const bar = html("span", { class: "length" });
      bar.style.width = `${((60 * size) / largest).toFixed(1)}%`;
      const factor = i > 0 && all[i - 1].size > 0 ? `× ${numberText(Number((size / all[i - 1].size).toPrecision(2)))}` : "";
      return [
        html("dt", {}, this.partial(copy)),
        html("dd", {}, bar, valueText(this.timeline.gradient(copy, this.at)), html("small", {}, factor)),
      ];
    });
    return html("div", { class: "way-back" }, html("p", { class: "label" }, "on its way back through time, its size has changed"), html("dl", {}, ...rows));
  }

  // The running sum of the operand's gradient.
  total(node, arrival) {
    const { before, total, added } = arrival;
    const all = this.timeline.arrivals[node];
    const left = all.length - all.indexOf(arrival) - 1;
    const rest = left > 0 ? `${left} more to come` : all.length > 1 ? "complete" : "complete: it is read once";
    const from = before === undefined ? 0 : before;
    const earlier = before !== undefined && all.indexOf(arrival) === 0 ? " (held from an earlier backward)" : "";
    return html(
      "p",
      { class: `total ${left > 0 ? "open" : "done"}` },
      html("span", { class: "label" }, "sum so far "),
      isArray(added) && before === undefined ? "0" : this.number(from),
      earlier,
      " → ",
      this.number(total),
      html("span", { class: "rest" }, rest),
    );
  }

  end() {
    const { story } = this.timeline;
    const rows = story.shared.filter((node) => this.timeline.gradient(node, this.at) !== undefined);
    return [
      this.heading("backward", null, "Every gradient is known"),
      this.why(
        story.steps > 0
          ? "One forward and one backward pass gave the gradient of every parameter, whatever their number. Each is the sum of one term per timestep."
          : "One forward and one backward pass gave the gradient of every node, whatever their number.",
        "A step of training now moves each parameter a little against its gradient.",
      ),
      rows.length > 0 &&
        html(
          "dl",
          { class: "given" },
          ...rows.flatMap((node) => [html("dt", {}, this.partial(node)), html("dd", {}, this.briefly(this.timeline.gradient(node, this.at)))]),
        ),
    ];
  }
}

function keys() {
  return [
    ["←", "back"],
    ["→", "forward"],
    ["Space", "play"],
    ["Home", "start"],
    ["End", "end"],
  ].flatMap(([key, what]) => [html("kbd", {}, key), ` ${what}  `]);
}
