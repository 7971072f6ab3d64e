"use strict";
// Sorts the table of recipes, and shows a run's own report, which lies in this page.
// Without it the page is the same table and pictures, so the buttons are made here.
(() => {
  const table = document.getElementById("recipes");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const dialog = document.getElementById("report");
  const number = /(\d+(?:\.\d+)?(?:e[-+]?\d+)?)/;

  function button(text, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  }

  // Compares texts by their words and, where both have a number, by its value.
  function compareTexts(a, b) {
    const [left, right] = [a, b].map((text) => text.split(number)); // odd: numbers
    for (let i = 0; i < Math.min(left.length, right.length); i++) {
      const gap = i % 2 ? left[i] - right[i] : left[i].localeCompare(right[i]);
      if (gap) return gap;
    }
    return left.length - right.length;
  }

  function compare(a, b, column) {
    const [x, y] = [a, b].map((row) => row.cells[column]);
    if (x.dataset.value === undefined) return compareTexts(x.textContent, y.textContent);
    return x.dataset.value - y.dataset.value;
  }

  function sort(head) {
    const column = head.cellIndex;
    const now = head.getAttribute("aria-sort");
    const other = { ascending: "descending", descending: "ascending" };
    const order = other[now] ?? head.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const missing = (row) => row.cells[column].dataset.value === "";
    const rows = [...body.rows].sort(
      (a, b) => missing(a) - missing(b) || sign * compare(a, b, column),
    );
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    body.append(...rows);
  }

  for (const head of heads) {
    const label = head.textContent;
    head.replaceChildren(button(label, () => sort(head)));
  }

  let recipes; // read when the first report is asked for

  function show(recipe, chosen) {
    const title = document.getElementById("report-title");
    title.textContent = recipe.name;
    const choices = recipe.runs.map((run) => {
      const one = button(`seed ${run.seed}: ${run.accuracy}`, () => show(recipe, run));
      one.setAttribute("aria-pressed", String(run === chosen));
      return one;
    });
    document.getElementById("report-runs").replaceChildren(...choices);
    choices[recipe.runs.indexOf(chosen)].focus();
    const frame = document.getElementById("report-page");
    const absent = document.getElementById("report-absent");
    frame.hidden = chosen.page === null;
    absent.hidden = chosen.page !== null;
    if (chosen.page === null) {
      absent.querySelector("span").textContent = chosen.reason;
      const link = absent.querySelector("a");
      link.href = chosen.link;
      link.textContent = chosen.path;
    } else {
      frame.srcdoc = chosen.page;
      frame.title = `report of ${recipe.name}, random seed ${chosen.seed}`;
    }
  }

  [...body.rows].forEach((row, place) => {
    const cell = row.querySelector("th");
    const open = button(cell.textContent, () => {
      recipes ??= JSON.parse(document.getElementById("reports").textContent);
      dialog.showModal();
      show(recipes[place], recipes[place].runs[recipes[place].best]);
    });
    open.setAttribute("aria-haspopup", "dialog");
    cell.replaceChildren(open);
  });

  document.getElementById("report-close").addEventListener("click", () => dialog.close());
  document.getElementById("hint").hidden = false;
  document.documentElement.classList.add("live");
})();
