// The gradients of what stands once and is read again and again: one term per timestep, as they come in.

import { html, heatMap, setText } from "./elements.js";
import { exactly, isArray, magnitude, shapeText, valueText } from "./numbers.js";

const MOST_LABELS = 16;

export class SharedGradients {
  constructor(element, timeline, choose) {
    this.element = element;
    this.timeline = timeline;
    this.nodes = timeline.story.nodes;
    this.choose = choose;
    this.rows = timeline.hasBackward ? timeline.story.shared.map((node) => this.row(node)) : [];
    if (this.rows.length === 0) return;
    element.hidden = false;
    const steps = timeline.story.steps;
    const title = steps > 0 ? "Shared weights: one term per timestep" : "Gradients of the leaves: one term per reader";
    element.append(html("h2", {}, title), ...this.rows.map((row) => row.element));
  }

  // The terms of a gradient by timestep, or by reader where there is no time.
  columns(node) {
    const arrivals = this.timeline.arrivals[node];
    const { steps } = this.timeline.story;
    const columns = new Map();
    if (steps > 0) for (let t = 0; t < steps; t += 1) columns.set(t, { label: `t = ${t}`, arrivals: [] });
    for (const arrival of arrivals) {
      const t = arrival.from < 0 ? undefined : this.nodes[arrival.from].t;
      const key = t ?? `from ${arrival.from} ${arrival.operand}`;
      if (!columns.has(key)) {
        columns.set(key, { label: arrival.from < 0 ? "seed" : `from ${this.nodes[arrival.from].symbol}`, arrivals: [] });
      }
      columns.get(key).arrivals.push(arrival);
    }
    return [...columns.values()];
  }

  row(node) {
    const { symbol, value, earlier } = this.nodes[node];
    const columns = this.columns(node);
    const largest = Math.max(...this.timeline.arrivals[node].map((arrival) => magnitude(arrival.added)), 0);
    const sum = html("span", { class: "sum" });
    const map = html("span", { class: "sum-map" });
    const signed = this.timeline.arrivals[node].some(({ added }) => !isArray(added) && Number(added) < 0);
    const bars = columns.map((column) => this.bar(column, columns.length));
    const name = html("span", { class: "symbol" }, `∂${this.nodes[this.timeline.story.root].symbol}/∂${symbol}`);
    this.choose.hover(name, node);
    const shape = isArray(value) ? html("small", {}, `${shapeText(value)}; the bars are norms`) : "";
    const held = earlier === undefined ? "" : html("small", {}, `held ${valueText(earlier)} from an earlier backward`);
    const terms = html("p", { class: "terms", hidden: isArray(value) ? "" : undefined });
    const element = html(
      "div",
      { class: "shared-row" },
      html("div", { class: "shared-name" }, name, " = ", sum, map, held, shape),
      html("div", { class: signed ? "bars signed" : "bars" }, ...bars.map((bar) => bar.element)),
      terms,
    );
    element.dataset.node = symbol;
    return { node, element, sum, map, terms, bars, columns, largest, signed, shown: -1 };
  }

  bar(column, count) {
    const fill = html("span", { class: "fill" });
    const label = html("span", { class: "amount" });
    const foot = html("span", { class: "foot" }, count <= MOST_LABELS ? column.label : "");
    const under = html("div", { class: "under" }, foot, label);
    const element = html("div", { class: "bar pending", title: column.label }, html("span", { class: "field" }, fill), under);
    return { column, element, fill, label, crowded: count > MOST_LABELS };
  }

  show(at) {
    for (const row of this.rows) {
      const count = this.timeline.arrived(row.node, at);
      const now = count > 0 && this.timeline.arrivals[row.node][count - 1].at === at ? at : -1;
      if (row.shown !== count || row.now !== now) this.update(row, at, count);
      row.shown = count;
      row.now = now;
    }
  }

  update(row, at, count) {
    const total = this.timeline.gradient(row.node, at);
    const all = this.timeline.arrivals[row.node].length;
    setText(row.sum, total === undefined ? "?" : valueText(total));
    row.sum.dataset.exact = total === undefined ? "" : exactly(total);
    row.element.classList.toggle("complete", count === all);
    row.map.replaceChildren(...(total !== undefined && isArray(total) ? [heatMap(total, [150, 30])] : []));
    const terms = [];
    for (const bar of row.bars) {
      const here = bar.column.arrivals.filter((arrival) => arrival.at <= at);
      const fresh = here.some((arrival) => arrival.at === at);
      this.fillBar(bar, here, row, fresh);
      if (here.length > 0) terms.push([bar.column.label, here]);
    }
    setText(row.terms, this.sentence(terms));
  }

  fillBar(bar, here, { largest, signed }, fresh) {
    const room = signed ? 50 : 100;
    const none = bar.column.arrivals.length === 0;
    bar.element.className = `bar ${none ? "none" : here.length === 0 ? "pending" : "arrived"}${fresh ? " fresh" : ""}`;
    const size = amountOf(here);
    bar.fill.className = `fill ${size < 0 ? "below" : "above"}`;
    bar.fill.style.height = here.length === 0 ? "0" : `${Math.min(room, (room * Math.abs(size)) / (largest || 1)).toFixed(1)}%`;
    setText(bar.label, here.length === 0 ? (none ? "–" : "…") : bar.crowded ? "" : amountText(here));
    bar.label.dataset.exact = here.length === 0 ? "" : String(size);
  }

  // "= 0.12 (t = 3) + 0.05 (t = 2)", in the order in which the terms came.
  sentence(terms) {
    if (terms.length === 0 || this.timeline.story.steps === 0 || isArray(terms[0][1][0].added)) return "";
    const ordered = terms.toSorted((a, b) => a[1][0].at - b[1][0].at).slice(0, 8);
    const written = ordered.map(([label, here], i) => `${behind(amountText(here), i > 0)} (${label})`);
    return `= ${written.join("")}${terms.length > 8 ? " + …" : ""}`;
  }
}

function amountOf(arrivals) {
  return arrivals.reduce((sum, { added }) => sum + (isArray(added) ? magnitude(added) : Number(added)), 0);
}

function amountText(arrivals) {
  if (arrivals.length === 1) return valueText(arrivals[0].added);
  return isArray(arrivals[0].added) ? `${arrivals.length} terms` : valueText(amountOf(arrivals));
}

// A term as one writes it behind others: " + 0.5", " − 0.5".
function behind(text, isLater) {
  if (!isLater) return text;
  return text.startsWith("−") ? ` − ${text.slice(1)}` : ` + ${text}`;
}
