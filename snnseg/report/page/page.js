"use strict";
// Sorting, finding, hiding nets and hints: the page is whole without any of it.
const all = (where, what) => [...where.querySelectorAll(what)];

// a figure's points tell their numbers
const hint = document.getElementById("hint");
for (const title of all(document, ".dot > title")) {
  title.parentNode.dataset.hint = title.textContent;
  title.remove();
}
const show = event => {
  const found = event.target.closest && event.target.closest(".dot") ? document.elementsFromPoint(event.clientX, event.clientY) : [];
  const dots = new Set(found.map(element => element.closest(".dot")).filter(Boolean));      // points that lie on one another tell all of it
  hint.hidden = !dots.size;
  if (!dots.size) return;
  hint.textContent = [...dots].slice(0, 6).map(dot => dot.dataset.hint).join("\n\n");
  const left = Math.min(event.clientX + 12, innerWidth - hint.offsetWidth - 8);
  const below = event.clientY + 14 + hint.offsetHeight < innerHeight;
  hint.style.left = Math.max(8, left) + "px";
  hint.style.top = (below ? event.clientY + 14 : event.clientY - hint.offsetHeight - 10) + "px";
};
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { hint.hidden = true; }, true);

// a net is hidden in all panels of its figure
for (const button of all(document, ".legend button")) button.addEventListener("click", () => {
  const shown = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", shown);
  for (const series of all(button.closest("figure"), ".series"))
    if (series.dataset.net === button.dataset.net) series.classList.toggle("off", !shown);
});

// a table is sorted by the column whose head is pressed: numbers as numbers, what is none at the end
const value = (row, k) => {
  const text = row.cells[k].textContent.trim(), number = parseFloat(text.replace("\u2212", "-"));
  return Number.isNaN(number) ? text : number;
};
const order = (a, b) => typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1;
for (const table of all(document, "table[data-sortable]")) all(table, "thead th").forEach((head, k) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending" || !(head.hasAttribute("aria-sort") || head.classList.contains("number"));
    for (const other of all(table, "thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map(row => [value(row, k), row]);
    const words = rows.filter(([v]) => typeof v !== "number"), numbers = rows.filter(([v]) => typeof v === "number");
    const turn = (a, b) => (up ? 1 : -1) * order(a[0], b[0]);
    table.tBodies[0].append(...[...numbers.sort(turn), ...words.sort(turn)].map(([, row]) => row));
  });
});

// rows of a long table are found by a word
for (const table of all(document, "table[data-sortable]")) {
  if (table.tBodies[0].rows.length < 30) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  label.className = "filter";
  input.type = "search";
  label.append("Find rows", input);
  table.parentNode.before(label);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}

// a film is played, stopped and stepped through; it plays by itself only while it is seen, and not where the reader wants no motion
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const film of all(document, ".film")) {
  const count = Number(film.dataset.frames), player = film.querySelector(".player");
  if (count < 2) continue;
  const button = player.querySelector("button"), slider = player.querySelector("input"), told = player.querySelector("output");
  const moving = all(film, "[data-moves] img"), labels = all(film, ".labels li").map(li => li.textContent);
  let timer = 0, stopped = still;
  const at = k => {
    slider.value = k + 1;
    slider.setAttribute("aria-valuetext", labels[k]);
    told.textContent = labels[k];
    for (const picture of moving) picture.style.setProperty("--k", k);
  };
  const play = on => {
    clearInterval(timer);
    timer = on ? setInterval(() => at(Number(slider.value) % count), 600) : 0;
    button.textContent = on ? "Stop" : "Play";
  };
  player.hidden = false;
  at(count - 1);
  button.addEventListener("click", () => { stopped = Boolean(timer); play(!timer); });
  slider.addEventListener("input", () => { stopped = true; play(false); at(Number(slider.value) - 1); });
  new IntersectionObserver(([seen]) => play(seen.isIntersecting && !stopped)).observe(film);
}
