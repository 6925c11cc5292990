// The timeline: what is known of each node after each event.

import { isArray, magnitude, sumOf } from "./numbers.js";

export class Timeline {
  constructor(story) {
    this.story = story;
    this.events = story.events;
    this.last = story.events.length - 1;
    this.computedAt = story.nodes.map(() => 0);
    this.passedAt = story.nodes.map(() => Infinity);
    this.arrivals = story.nodes.map(() => []);
    this.seedAt = story.events.findIndex((event) => event.pass === "seed");
    this.hasBackward = this.seedAt >= 0;
    this.largest = 0;
    story.events.forEach((event, at) => this.read(event, at));
  }

  read(event, at) {
    if (event.pass === "forward") this.computedAt[event.node] = at;
    if (event.pass === "seed") this.arrive(event.node, { at, from: -1, added: event.seed, total: event.seed });
    if (event.pass === "backward") {
      this.passedAt[event.node] = at;
      for (const to of event.to) {
        this.largest = Math.max(this.largest, magnitude(to.added));
        this.arrive(to.node, { at, from: event.node, operand: to.operand, added: to.added, total: to.total });
      }
    }
  }

  arrive(node, arrival) {
    const before = this.arrivals[node].at(-1)?.total ?? this.story.nodes[node].earlier;
    if (isArray(arrival.added) && !isArray(arrival.total)) {
      const { added } = arrival;
      arrival.total = before === undefined ? added : sumOf(before, added, arrival.total);
    }
    arrival.before = before;
    this.arrivals[node].push(arrival);
  }

  isBackward(at) {
    return this.hasBackward && at >= this.seedAt;
  }

  isComputed(node, at) {
    return this.computedAt[node] <= at;
  }

  // How many gradients have arrived at a node.
  arrived(node, at) {
    const all = this.arrivals[node];
    let count = all.length;
    while (count > 0 && all[count - 1].at > at) count -= 1;
    return count;
  }

  // The gradient of a node as far as it has arrived; undefined before.
  gradient(node, at) {
    const count = this.arrived(node, at);
    return count > 0 ? this.arrivals[node][count - 1].total : undefined;
  }

  // The event at which the reader `from` passed its gradient to `node` as its operand.
  passed(from, operand) {
    const at = this.passedAt[from];
    if (at === Infinity) return null;
    const to = this.events[at].to.find((each) => each.operand === operand);
    return to === undefined ? null : { at, size: magnitude(to.added) };
  }
}
