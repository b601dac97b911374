// Behavior of report.html: charts, the slider over training steps, filters, and sortable tables. No network, no storage.
const read = (id) => JSON.parse(document.getElementById(id)?.textContent || "null");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Charts. Text and axes take the color of the page, so that they are readable in light and dark mode.
const ink = { labelColor: "currentColor", titleColor: "currentColor", domainColor: "currentColor", tickColor: "currentColor" };
const config = {
  background: null, font: "system-ui, sans-serif", view: { stroke: null },
  axis: { ...ink, gridColor: "#88888840", labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
  legend: { ...ink, labelFontSize: 12, symbolType: "circle", symbolOpacity: 1, columns: innerWidth < 600 ? 2 : 4 }, title: { color: "currentColor" }, rule: { color: "currentColor" },
};
const views = [];
for (const [id, spec] of Object.entries(read("charts") || {})) {
  window.vegaEmbed(`#chart-${id}`, spec, { renderer: "svg", actions: false, logLevel: 1, config, tooltip: { theme: "dark" } })
    .then(({ view }) => { views.push(view); showStep(view); });
}
let currentStep = null;
function showStep(view) {
  if (currentStep !== null) view.signal("step", currentStep).runAsync();
}

// Sortable tables: a button in each head cell; numbers sort by their exact value.
const value = (row, column) => {
  const cell = row.children[column], exact = cell?.dataset.value;
  const number = Number(exact);
  return exact !== undefined && exact !== "" && !Number.isNaN(number) ? number : (exact || cell?.textContent.trim() || "");
};
for (const table of all("table.sortable")) {
  const heads = all("thead tr:last-child th", table);
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const compared = (a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x === "–" || y === "–") return (x === "–") - (y === "–"); // missing values stay at the end
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compared));
  }));
}
for (const input of all("input[data-filters]")) {
  const rows = all(`#${input.dataset.filters} tbody tr`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const status = input.parentElement.querySelector("output");
    if (status) status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  });
}

// A phone shows the end of the row of samples, where plants are memorized.
for (const table of all("table.images")) table.parentElement.scrollLeft = table.scrollWidth;

// The slider: generations, maps and masks of every plant at one training step.
const line = read("timeline"), colors = read("colors") || {};
const load = (uri) => new Promise((done) => {
  if (!uri) return done(null);
  const image = new Image();
  image.onload = () => done(image);
  image.src = uri;
});
const pixels = (image) => {
  if (!image) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height);
};
const corner = (place) => [(place % line.columns) * line.tile, Math.floor(place / line.columns) * line.tile];

function drawTile(canvas, image, place) {
  const side = canvas.width, context = canvas.getContext("2d"), [x, y] = corner(place);
  context.clearRect(0, 0, side, side);
  context.imageSmoothingEnabled = line.tile > 32;
  if (image) context.drawImage(image, x, y, line.tile, line.tile, 0, 0, side, side);
}
function drawOutline(canvas, mask, place, dashed) {
  if (!mask) return;
  const context = canvas.getContext("2d"), scale = canvas.width / line.tile, [left, top] = corner(place);
  const inside = (x, y) => x >= 0 && y >= 0 && x < line.tile && y < line.tile && mask.data[4 * ((top + y) * mask.width + left + x)] > 127;
  const path = new Path2D();
  for (let y = 0; y <= line.tile; y++) for (let x = 0; x <= line.tile; x++) {
    if (inside(x, y) !== inside(x, y - 1)) { path.moveTo(x * scale, y * scale); path.lineTo((x + 1) * scale, y * scale); }
    if (inside(x, y) !== inside(x - 1, y)) { path.moveTo(x * scale, y * scale); path.lineTo(x * scale, (y + 1) * scale); }
  }
  for (const [color, width] of [["#000", 4], [dashed ? "#ff9f1c" : "#fff", 2]]) {
    context.setLineDash(dashed && color !== "#000" ? [7, 5] : []);
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.stroke(path);
  }
}

async function startTimeline() {
  const slider = document.getElementById("step"), choice = document.getElementById("map"), state = document.getElementById("state");
  const cards = document.getElementById("cards"), status = document.getElementById("shown"), label = document.getElementById("step-text");
  const [reference, region, ...images] = await Promise.all([line.reference, line.region, ...line.images].map(load));
  const planted = pixels(region), sheets = {};
  for (const name of line.maps) {
    sheets[name] = { map: await Promise.all(line.map[name].map(load)), mask: (await Promise.all(line.mask[name].map(load))).map(pixels) };
  }
  const items = line.plants.map((plant, place) => {
    const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
    card.querySelector("h3").append(plant.caption);
    card.querySelector(".dot").style.background = colors[plant.kind];
    card.querySelector(".kind").textContent = [plant.kind, plant.detail].filter(Boolean).join(", ");
    card.querySelector(".emerged").textContent = plant.emerged;
    const part = (name) => card.querySelector(`.${name}`), canvas = (name) => card.querySelector(`.${name} canvas`);
    if (reference) {
      drawTile(canvas("planted"), reference, place);
      if (plant.detail && !plant.detail.startsWith("whole")) drawOutline(canvas("planted"), planted, place, false);
      canvas("planted").setAttribute("aria-label", `planted image of ${plant.caption}`);
    } else part("planted").remove();
    cards.append(card);
    return { plant, place, card, part, canvas };
  });
  const everMemorized = (place) => line.memorized.some((row) => row[place] > 0.5);
  const matches = (item, index) => {
    const now = line.memorized[index][item.place] > 0.5;
    const kinds = all("input[name=kind]").filter((box) => box.checked).map((box) => box.value);
    return kinds.includes(item.plant.kind)
      && { all: true, now, not: !now, never: !everMemorized(item.place) }[state.value];
  };
  function update() {
    const index = Number(slider.value), step = line.steps[index], name = choice?.value;
    currentStep = step;
    views.forEach(showStep);
    label.textContent = `step ${step}`;
    slider.setAttribute("aria-valuetext", `training step ${step}`);
    let count = 0;
    for (const item of items) {
      item.card.hidden = !matches(item, index);
      if (item.card.hidden) continue;
      count += 1;
      const memorized = line.memorized[index][item.place], distance = line.distance[index][item.place], area = name && line.auc[name][index][item.place];
      const verdict = memorized === null ? "" : memorized > 0.5 ? "memorized" : "not memorized";
      drawTile(item.canvas("generated"), images[index], item.place);
      item.canvas("generated").setAttribute("aria-label", `generation for ${item.plant.caption} at step ${step}: ${verdict}`);
      item.card.classList.toggle("copied", memorized > 0.5);
      item.card.querySelector(".state").textContent = [verdict, distance === null ? "" : `calibrated distance ${distance.toFixed(2)}`].filter(Boolean).join(", ");
      const figure = item.card.querySelector(".mapped");
      if (!figure) continue;
      const sheet = sheets[name], found = sheet?.map[index];
      drawTile(item.canvas("mapped"), found, item.place);
      if (found) {
        if (!item.plant.detail.startsWith("whole")) {
          drawOutline(item.canvas("mapped"), planted, item.place, false);
          drawOutline(item.canvas("mapped"), sheet.mask[index], item.place, true);
        }
      }
      const note = !found ? "not saved" : area === null ? "map" : `AUC ${area.toFixed(2)}`;
      figure.querySelector("figcaption").textContent = note;
      item.canvas("mapped").setAttribute("aria-label", `${name} for ${item.plant.caption} at step ${step}: ${note}`);
    }
    status.textContent = `${count} of ${items.length} shown`;
  }
  for (const control of [slider, choice, state, ...all("input[name=kind]")]) control?.addEventListener("input", update);
  if (!line.maps.length) items.forEach((item) => item.part("mapped").remove());
  update();
}
if (line) startTimeline();
