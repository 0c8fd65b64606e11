"use strict";

const root = document.documentElement;
const $ = (id) => document.getElementById(id);

/* Theme: follows the system until the button is used; paper is always light. */
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.style.colorScheme ? root.style.colorScheme === "dark" : dark.matches);
const button = $("theme");

function themed() {
  if (button) button.textContent = isDark() ? "Light" : "Dark";
  draw();
}
if (button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    themed();
  });
}
dark.addEventListener("change", themed);
let screenScheme = "";
addEventListener("beforeprint", () => {
  screenScheme = root.style.colorScheme;
  root.style.colorScheme = "light";
  draw();
});
addEventListener("afterprint", () => {
  root.style.colorScheme = screenScheme;
  draw();
});

/* Figures: Python names colours as CSS variables; they are resolved here, for the theme of the moment. */
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;

function resolved(value) {
  if (typeof value === "string" && value.startsWith("var(")) {
    if (value.includes("--sans")) return getComputedStyle(document.body).fontFamily;
    probe.style.color = value;
    return getComputedStyle(probe).color;
  }
  if (Array.isArray(value)) return value.map(resolved);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, resolved(one)]));
  }
  return value;
}

let figures = {};
const fit = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.offsetParent) Plotly.Plots.resize(target);
});

function draw() {
  for (const [id, { figure, readings }] of Object.entries(figures)) {
    const place = $(id);
    if (!place.offsetParent) continue;
    Plotly.react(place, resolved(figure.data), resolved(figure.layout), { displayModeBar: false });
    fit.observe(place);
    if (readings.length && !place.dataset.reads) {
      place.dataset.reads = "yes";
      place.on("plotly_hover", ({ points: [point] }) => read(place, readings[point.customdata]));
    }
  }
}

/* Corpus text is set as text, never as markup. */
function read(place, [before, token, numbers]) {
  const line = place.parentElement.querySelector(".reading p");
  const mark = document.createElement("mark");
  mark.textContent = token.trimStart();
  line.replaceChildren(before, token.startsWith(" ") ? " " : "", ...(token ? [mark] : []));
  place.parentElement.querySelector(".reading small").textContent = numbers;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function start() {
  const [library, data] = await Promise.all([unpacked("plotly"), unpacked("figures")]);
  const script = document.createElement("script");
  script.textContent = library;
  document.head.append(script);
  figures = JSON.parse(data);
  draw();
}

/* Browsers of atoms: a search, an order, a page at a time. */
function browser(place) {
  const page = 6;
  let shown = page;
  const [search, sort, count, more] = ["search", "sort", "count", "more"].map((part) =>
    place.querySelector(`.browser-${part}`),
  );
  const group = place.querySelector(".atoms");
  const tools = place.querySelector(".tools");

  function browse() {
    const wanted = search.value.trim().toLowerCase();
    const key = (card) => (card.dataset[sort.value] === "" ? -Infinity : Number(card.dataset[sort.value]));
    const cards = [...group.querySelectorAll(".atom-card")].sort((a, b) => key(b) - key(a) || 0);
    let found = 0;
    for (const card of cards) {
      group.append(card);
      const hit = !wanted || card.textContent.toLowerCase().includes(wanted);
      if (hit) found += 1;
      card.hidden = !hit || found > shown;
    }
    count.textContent = wanted ? `${found} of ${cards.length} atoms` : `${cards.length} atoms`;
    more.hidden = found <= shown;
    more.textContent = `Show ${Math.min(page, found - shown)} more of ${found - shown}`;
  }

  tools.hidden = false;
  tools.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", () => {
    shown = page;
    browse();
  });
  sort.addEventListener("change", browse);
  more.addEventListener("click", () => {
    shown += page;
    browse();
  });
  browse();
}
document.querySelectorAll(".browser").forEach(browser);

/* In a notebook the page is a frame, which is made as high as the page. */
function framed() {
  if (window.frameElement) window.frameElement.style.height = `${root.scrollHeight + 4}px`;
}

start().then(themed).then(framed, (error) => {
  for (const place of document.querySelectorAll(".canvas")) {
    place.textContent = `This browser could not draw the figure (${error}).`;
  }
});
themed();
