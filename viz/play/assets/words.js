// What is said about an event: why it is so, for the panel, and one sentence for who listens.

import { isArray, numberText, shapeText, valueText } from "./numbers.js";

const BACKWARD = {
  add: "A sum hands its gradient on unchanged to each of its terms.",
  subtract: "A difference hands its gradient on: unchanged to the first, with the other sign to the second.",
  multiply: "Each factor receives the gradient times the other factor.",
  matmul: "Each factor receives the gradient times the other factor, transposed.",
  tanh: "The derivative of tanh is at most 1, and nearly 0 where tanh saturates: here gradients shrink.",
  sigmoid: "The derivative of σ is at most ¼: here gradients shrink.",
  relu: "The gradient passes where the input was positive, and stops elsewhere.",
  time_sum: "A sum over time hands its gradient on unchanged to every timestep.",
  time_mean: "A mean over time shares its gradient out equally among the timesteps.",
  last: "Only the last timestep is read, so only it receives the gradient. All others hear of it through the states.",
  mean: "A mean shares its gradient out equally among its elements.",
  sum: "Every element that was summed receives the gradient.",
  square: "The derivative of a square is twice its base.",
};

export class Words {
  constructor(timeline) {
    this.timeline = timeline;
    this.story = timeline.story;
    this.nodes = timeline.story.nodes;
  }

  when(node) {
    const { t } = this.nodes[node];
    return t === undefined ? "" : `t = ${t}`;
  }

  rootSymbol() {
    return this.nodes[this.story.root].symbol;
  }

  // Why the value of a node is what it is.
  forward(node) {
    const { kind, op, t, operands } = this.nodes[node];
    const sentences = [];
    if (kind === "input") sentences.push(`The input of timestep ${t} arrives.`);
    if (op === "delay") sentences.push(this.delayForward(node));
    if (kind === "next") sentences.push("The next timestep will read this value as its state.");
    if (kind === "reduction") sentences.push("One value for the whole sequence: the timesteps meet here.");
    const shared = this.sharedOperands(node);
    if (t !== undefined && shared.length > 0) {
      sentences.push(`${shared.join(" and ")} ${shared.length > 1 ? "are" : "is"} the same in every timestep.`);
    }
    if (node === this.story.root && this.timeline.hasBackward) {
      sentences.push("From here the backward pass will start.");
    }
    if (operands?.length === 0) return "";
    return sentences.join(" ");
  }

  delayForward(node) {
    const from = this.nodes[node].operands[0];
    if (from < 0 || this.nodes[from].t === undefined) return "At this end of the sequence the state has its initial value.";
    const side = this.nodes[from].t < this.nodes[node].t ? "before" : "after";
    return `The state is what ${this.nodes[from].symbol} was, one timestep ${side}. Unrolled, the cycle is this edge.`;
  }

  sharedOperands(node) {
    const found = (this.nodes[node].operands ?? []).filter((x) => x >= 0 && this.nodes[x].kind === "parameter");
    return [...new Set(found)].map((x) => this.nodes[x].symbol);
  }

  // Why a node passes on what it does.
  backward(node) {
    const { op, t } = this.nodes[node];
    const sentences = [];
    if (op === "delay") sentences.push(this.delayBackward(node));
    else if (BACKWARD[op] !== undefined) sentences.push(BACKWARD[op]);
    const shared = this.sharedOperands(node);
    if (t !== undefined && shared.length > 0) {
      const many = shared.length > 1;
      sentences.push(
        `${shared.join(" and ")} ${many ? "stand" : "stands"} in every timestep: ` +
          `this is the term of t = ${t} in ${many ? "their sums" : "its sum"}.`,
      );
    }
    return sentences.join(" ");
  }

  delayBackward(node) {
    const from = this.nodes[node].operands[0];
    if (from < 0 || this.nodes[from].t === undefined) return "The end of the way: behind it lies only the initial value.";
    return (
      `A delay changes nothing, so the gradient crosses unchanged from timestep ${this.nodes[node].t} ` +
      `to timestep ${this.nodes[from].t}. This is backpropagation through time.`
    );
  }

  // The sum of several gradients in words; empty for one.
  reads(node) {
    const count = this.timeline.arrivals[node].length;
    const symbol = this.nodes[node].symbol;
    return count > 1 ? `${symbol} was read ${count} times, so ${count} gradients arrive and are added.` : "";
  }

  value(node) {
    const { value } = this.nodes[node];
    return isArray(value) ? `an array ${shapeText(value)} with norm ${numberText(value.norm)}` : numberText(value);
  }

  // An expression as plain text.
  plain(pieces) {
    return pieces
      .map((piece) => {
        if (typeof piece === "string") return piece;
        const [node, brackets, gradient] = piece;
        if (node < 0) return "…";
        const { symbol, compound } = this.nodes[node];
        if (gradient) return `∂${this.rootSymbol()}/∂${compound ? `(${symbol})` : symbol}`;
        return brackets && compound ? `(${symbol})` : symbol;
      })
      .join("");
  }

  // One sentence for a screen reader.
  spoken(at) {
    const event = this.timeline.events[at];
    const root = this.rootSymbol();
    if (event.pass === "start") return "Start. The parameters are given; nothing has been computed.";
    if (event.pass === "end") return "End. Every gradient is complete.";
    const { symbol, expression } = this.nodes[event.node];
    const when = this.when(event.node);
    const place = when === "" ? "" : `, ${when}`;
    if (event.pass === "seed") return `The backward pass starts: the gradient of ${root} by itself is ${valueText(event.seed)}.`;
    if (event.pass === "forward") {
      const made = expression === undefined ? "" : this.plain(expression);
      const same = made === "" || made === symbol;
      return `Forward${place}: ${symbol}${same ? "" : ` = ${made}`} is ${this.value(event.node)}.`;
    }
    const gradient = valueText(this.timeline.gradient(event.node, at));
    const passed = event.to.map((to) => `${valueText(to.added)} on to ${this.nodes[to.node].symbol}`);
    return `Backward${place}: ${symbol} has gradient ${gradient} and passes ${passed.slice(0, 4).join(", ")}.`;
  }
}
