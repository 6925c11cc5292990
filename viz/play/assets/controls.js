// Buttons, slider and keys; and what plays when nobody presses them.

import { byId, setText } from "./elements.js";

const PAUSE = 1400;
const SIGNS = { play: "M7 4.500v15L19.500 12z", pause: "M6 4.500h4.500v15H6zM13.500 4.500H18v15h-4.500z" };

export class Controls {
  constructor(timeline, go) {
    this.timeline = timeline;
    this.go = go;
    this.at = 0;
    this.timer = 0;
    this.slider = byId("slider");
    this.slider.max = String(timeline.last);
    this.connect();
    this.markPasses();
  }

  connect() {
    const moves = {
      "to-start": () => this.move(0),
      back: () => this.move(this.at - 1),
      forward: () => this.move(this.at + 1),
      "to-end": () => this.move(this.timeline.last),
      "to-forward-pass": () => this.move(Math.min(1, this.timeline.last)),
      "to-backward-pass": () => this.move(this.timeline.seedAt),
    };
    for (const [id, move] of Object.entries(moves)) byId(id).addEventListener("click", move);
    byId("play").addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("click", (event) => {
      // A button that was clicked would press itself again at the space key, which is to play.
      if (event.detail > 0 && event.target instanceof Element) event.target.closest("button")?.blur();
    });
  }

  // Where on the track the two passes lie.
  markPasses() {
    const { hasBackward, seedAt, last } = this.timeline;
    const share = hasBackward ? seedAt / last : 1;
    byId("passes").style.setProperty("--share", share.toFixed(4));
    this.slider.style.setProperty("--share", share.toFixed(4));
    const button = byId("to-backward-pass");
    button.hidden = !hasBackward;
  }

  press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { target } = event;
    const typing = target instanceof HTMLSelectElement;
    const moves = {
      ArrowLeft: this.at - 1,
      ArrowRight: this.at + 1,
      Home: 0,
      End: this.timeline.last,
    };
    if (event.key in moves && !typing) {
      event.preventDefault();
      this.move(moves[event.key]);
    }
    const onButton = target instanceof HTMLButtonElement || typing;
    if (event.key === " " && !onButton) {
      event.preventDefault();
      this.toggle();
    }
  }

  move(at) {
    this.pause();
    this.go(at);
  }

  show(at) {
    this.at = at;
    const { last, hasBackward, seedAt } = this.timeline;
    this.slider.value = String(at);
    this.slider.style.setProperty("--at", last > 0 ? (at / last).toFixed(4) : "0");
    const pass = hasBackward && at >= seedAt ? "Backward" : "Forward";
    this.slider.setAttribute("aria-valuetext", `step ${at} of ${last}, ${pass.toLowerCase()} pass`);
    setText(byId("count"), `${at} / ${last}`);
    for (const id of ["to-start", "back"]) disable(byId(id), at === 0);
    for (const id of ["to-end", "forward"]) disable(byId(id), at === last);
    byId("to-forward-pass").setAttribute("aria-current", String(pass === "Forward"));
    byId("to-backward-pass").setAttribute("aria-current", String(pass === "Backward"));
  }

  // --- playing ---

  toggle() {
    if (this.timer !== 0) this.pause();
    else this.play();
  }

  play() {
    if (this.at === this.timeline.last) this.go(0);
    this.sign("pause", "Pause");
    this.wait();
  }

  wait() {
    this.timer = setTimeout(() => {
      this.go(this.at + 1);
      if (this.at === this.timeline.last) this.pause();
      else this.wait();
    }, PAUSE / Number(byId("speed").value));
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.sign("play", "Play");
  }

  sign(shape, label) {
    byId("play-sign").setAttribute("d", SIGNS[shape]);
    byId("play").setAttribute("aria-label", label);
  }
}

// Not `disabled`: a disabled button would lose the focus of who pressed it.
function disable(button, off) {
  button.setAttribute("aria-disabled", String(off));
}
