"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const canvas = get("canvas"), pen = get("pen"), paper = get("paper"), file = get("file");
  const { types, megabytes } = get("try").dataset;
  const ink = canvas.getContext("2d");
  const STEP = 10; // pixels of the board that an arrow key moves the pen
  const at = { x: canvas.width / 2, y: canvas.height / 2, down: false };
  let drawing = false;
  let asked = 0; // the latest request: answers to older ones are dropped

  function clear() {
    asked += 1;
    ink.fillStyle = paper.checked ? "#fff" : "#000";
    ink.fillRect(0, 0, canvas.width, canvas.height);
    ink.strokeStyle = paper.checked ? "#000" : "#fff";
    ink.lineWidth = 22;
    ink.lineCap = ink.lineJoin = "round";
    say("\u00a0", "Nothing drawn yet.");
    get("bars").replaceChildren();
    get("seen").src = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";
  }

  function say(verdict, remark) {
    get("verdict").textContent = verdict;
    get("remark").textContent = remark;
  }

  function lineTo(from, to) {
    ink.beginPath();
    ink.moveTo(from.x, from.y);
    ink.lineTo(to.x, to.y);
    ink.stroke();
  }

  // By pointer.
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * canvas.width,
      y: ((event.clientY - box.top) / box.height) * canvas.height,
    };
  }
  let last = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    pen.hidden = true;
    last = place(event);
    lineTo(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const next = place(event);
    lineTo(last, next);
    last = next;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (drawing) labelDrawing();
      drawing = false;
    });
  }

  // By keyboard.
  function showPen() {
    pen.hidden = false;
    pen.classList.toggle("down", at.down);
    pen.style.left = `${(100 * at.x) / canvas.width}%`;
    pen.style.top = `${(100 * at.y) / canvas.height}%`;
  }
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      const next = {
        x: Math.min(Math.max(at.x + STEP * x, 0), canvas.width),
        y: Math.min(Math.max(at.y + STEP * y, 0), canvas.height),
      };
      if (at.down) lineTo(at, next);
      Object.assign(at, next);
    } else if (event.key === " ") {
      at.down = !at.down;
      if (at.down) lineTo(at, at);
      else labelDrawing();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      at.down = false;
      clear();
    } else {
      return;
    }
    event.preventDefault();
    showPen();
  });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) showPen();
  });
  canvas.addEventListener("blur", () => {
    pen.hidden = true;
    if (at.down) labelDrawing();
    at.down = false;
  });

  // Files: chosen, dropped, pasted.
  file.addEventListener("change", () => {
    if (file.files.length) labelFile(file.files[0]);
    file.value = ""; // the same file may be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files.length) labelFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) labelFile(event.clipboardData.files[0]);
  });

  function labelDrawing() {
    canvas.toBlob((blob) => label(blob, "your drawing"), "image/png");
  }

  async function labelFile(chosen) {
    if (!types.split(",").includes(chosen.type)) {
      refuse(`${chosen.name}: not a PNG, JPEG, GIF or BMP file`);
    } else if (chosen.size > megabytes * 1e6) {
      refuse(`${chosen.name}: larger than ${megabytes} MB`);
    } else {
      clear();
      await label(chosen, chosen.name);
    }
  }

  function refuse(reason) {
    clear();
    say("No answer", reason);
  }

  async function label(image, name) {
    const number = ++asked;
    let answer;
    try {
      const response = await fetch("label", {
        method: "POST", headers: { "Content-Type": image.type }, body: image,
      });
      answer = await response.json();
    } catch {
      answer = { error: "kcnn serve does not answer; is it still running?" };
    }
    if (number !== asked) return;
    if (answer.error) refuse(`${name}: ${answer.error}`);
    else show(answer, name);
  }

  const percent = (part) => `${(100 * part).toFixed(1)}\u202f%`;

  function show(answer, name) {
    if (answer.accepted) say(answer.label, `${percent(answer.probability)}; ${name}`);
    else say("None of these", `the nearest is ${answer.label}; ${name}`);
    const bars = get("bars");
    bars.classList.toggle("rejected", !answer.accepted);
    bars.replaceChildren(...answer.bars.map((bar) => row(bar, answer)));
    get("seen").src = answer.seen;
  }

  function row(bar, answer) {
    const most = answer.accepted && bar.label === answer.label ? " most" : "";
    const cell = (kind, text) => {
      const made = document.createElement("div");
      made.className = kind + most;
      made.textContent = text;
      return made;
    };
    const line = document.createElement("div");
    line.setAttribute("role", "row");
    line.style.display = "contents";
    const track = cell("track", ""), fill = cell("fill", "");
    fill.style.width = `${100 * bar.probability}%`;
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    const name = cell("name", bar.label), value = cell("value", percent(bar.probability));
    name.setAttribute("role", "rowheader");
    value.setAttribute("role", "cell");
    line.append(name, track, value);
    return line;
  }

  get("clear").addEventListener("click", clear);
  paper.addEventListener("change", clear);
  clear();
})();
