"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const rows = [...document.querySelectorAll("#table tbody tr")];
  const body = document.querySelector("#table tbody");
  const columnOffset = data.runs.length > 1 ? 2 : 1;
  const collator = new Intl.Collator("en", { numeric: true });
  const LAYERS = ["input", "truth", "prediction", "probability", "uncertainty", "errors"];
  const COUNTS = ["broken links", "false links", "false parts"];

  // ---- colours
  const theme = byId("theme");
  const remember = (value) => { try { localStorage.setItem("topolora-theme", value); } catch { /* files may have no storage */ } };
  const remembered = () => { try { return localStorage.getItem("topolora-theme") || ""; } catch { return ""; } };
  const paint = (value) => {
    if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
  };
  theme.value = remembered();
  paint(theme.value);
  theme.addEventListener("change", () => { paint(theme.value); remember(theme.value); });

  // ---- table
  const valueOf = (row, column) => {
    if (column === "name") return data.images[row.dataset.image].name;
    if (column === "run") return data.runs[row.dataset.run];
    const text = row.cells[Number(column) + columnOffset].dataset.value;
    return text === "" ? NaN : Number(text);
  };
  const compare = (a, b, sign) => {
    if (typeof a === "string") return sign * collator.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);  // missing ones last, either way
    return sign * (a - b);
  };
  const sortBy = (button) => {
    const head = button.closest("th");
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of document.querySelectorAll("#table thead th")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const keyed = rows.map((row) => [valueOf(row, button.dataset.column), row]);
    keyed.sort((one, two) => compare(one[0], two[0], ascending ? 1 : -1));
    rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
    body.append(...rows);
    listImages();
  };
  const filter = byId("filter");
  const applyFilter = () => {
    const part = byId("filter-name").value.trim().toLowerCase();
    const run = byId("filter-run")?.value ?? "";
    const column = byId("filter-score").value;
    const least = byId("filter-least").value === "" ? -Infinity : Number(byId("filter-least").value);
    const most = byId("filter-most").value === "" ? Infinity : Number(byId("filter-most").value);
    let shown = 0;
    for (const row of rows) {
      const bounded = least > -Infinity || most < Infinity;
      const value = bounded ? valueOf(row, column) : 0;
      const fits = data.images[row.dataset.image].name.toLowerCase().includes(part)
        && (run === "" || row.dataset.run === run) && (!bounded || (value >= least && value <= most));
      row.hidden = !fits;
      shown += fits;
    }
    byId("shown").textContent = `${shown} of ${rows.length} rows`;
    listImages();
  };
  for (const button of document.querySelectorAll("#table thead button")) button.addEventListener("click", () => sortBy(button));
  filter.addEventListener("input", applyFilter);
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("reset", () => setTimeout(applyFilter));

  // ---- columns of the table
  const boxes = [...document.querySelectorAll("#columns input")];
  const showColumns = () => {
    const left = boxes.filter((box) => !box.checked);
    byId("hidden-columns").textContent = left
      .map((box) => `#table tr > :nth-child(${Number(box.value) + columnOffset + 1}) { display: none; }`).join("");
    byId("columns-shown").textContent = `${boxes.length - left.length} of ${boxes.length} scores`;
  };
  const checkColumns = (wanted) => {
    for (const box of boxes) box.checked = wanted(box);
    showColumns();
  };
  for (const box of boxes) box.addEventListener("change", showColumns);
  byId("columns-all")?.addEventListener("click", () => checkColumns(() => true));
  byId("columns-first")?.addEventListener("click", () => checkColumns((box) => box.hasAttribute("data-first")));
  if (boxes.length) checkColumns((box) => box.hasAttribute("data-first"));  // whatever the browser remembers

  // ---- viewer
  const wanted = { base: "input", top: "errors" };  // what was chosen last, whether or not this image has it
  const state = { image: -1, base: "", top: "", className: 0 };
  const list = byId("image");
  const title = (number) => data.runs.length > 1 ? `${data.images[number].name} – ${data.runs[data.images[number].run]}` : data.images[number].name;
  const twins = (number) => data.images.map((image, other) => [image, other])
    .filter(([image, other]) => image.name === data.images[number].name && other !== number).map(([, other]) => other);
  const option = (value, text) => new Option(text, value);
  let listed = [];
  function listImages() {
    listed = rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.image));
    const shown = listed.includes(state.image) || state.image < 0 ? listed : [state.image, ...listed];
    list.replaceChildren(...shown.map((number) => option(number, title(number))));
    list.value = state.image;
  }
  const classOf = (number) => data.images[number].classes[Math.min(state.className, data.images[number].classes.length - 1)];
  const filesOf = (number) => ({ ...data.images[number].files, ...(classOf(number)?.files ?? {}) });
  const layersOf = (number) => {
    const files = filesOf(number);
    return LAYERS.filter((name) => files[name]);
  };
  const fileOf = (key) => {  // "errors", or "errors@12" for that of the same image in another run
    const [name, other] = key.split("@");
    return filesOf(other === undefined ? state.image : Number(other))[name];
  };
  const describe = (key) => {
    const [name, other] = key.split("@");
    return other === undefined ? name : `${name} of ${data.runs[data.images[Number(other)].run]}`;
  };

  const radio = (name, place) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "base", value: name });
    input.addEventListener("change", () => show(name, wanted.top));
    const key = document.createElement("kbd");
    key.textContent = place + 1;
    label.append(input, ` ${name} `, key);
    return label;
  };
  const listLayers = () => {
    const layers = layersOf(state.image);
    state.base = layers.includes(wanted.base) ? wanted.base : layers[0] ?? "";
    const base = byId("base");
    if (base.dataset.layers !== layers.join()) {  // only then: whoever chooses by keyboard stays where they are
      base.dataset.layers = layers.join();
      base.replaceChildren(base.querySelector("legend"), ...layers.map(radio));
    }
    for (const input of base.querySelectorAll("input")) input.checked = input.value === state.base;
    const others = twins(state.image).flatMap((number) => layersOf(number).filter((name) => name !== "input" && name !== "truth").map((name) => `${name}@${number}`));
    const keys = [...layers, ...others];
    const runOf = (key) => data.images[key.split("@")[1] ?? state.image].run;
    const alike = (key) => key.includes("@") && key.split("@")[0] === wanted.top.split("@")[0] && runOf(key) === runOf(wanted.top);
    const top = keys.includes(wanted.top) || !wanted.top.includes("@") ? wanted.top : keys.find(alike);
    byId("top").replaceChildren(option("", "nothing"), ...keys.map((key) => option(key, describe(key))));
    state.top = keys.includes(top) ? top : "";
    byId("top").value = state.top;
  };

  const show = (base, top) => {
    Object.assign(wanted, { base, top });
    listLayers();
    draw();
  };
  const setPicture = (element, source, alt) => {
    element.hidden = !source;
    if (source && element.getAttribute("src") !== source) element.src = source;
    if (!source) element.removeAttribute("src");
    element.alt = source ? alt : "";
  };
  function draw() {
    const image = data.images[state.image];
    const base = image.files.figure ?? fileOf(state.base);
    const top = state.top ? fileOf(state.top) : undefined;
    const amount = Number(byId("amount").value);
    const shared = state.top.includes("@") ? Number(state.top.split("@")[1]) : state.image;
    const shownClass = classOf(shared);
    const visible = state.base === "errors" || state.top.startsWith("errors") || state.base === "prediction" || state.top.startsWith("prediction");
    const marks = byId("marks").checked && visible ? shownClass?.files.marks : undefined;
    const words = (shownClass?.counts ?? []).map((count, place) => `${count ?? "unknown"} ${COUNTS[place]}`).join(", ");
    setPicture(byId("below"), base, image.files.figure ? `input, truth, prediction and errors of ${image.name}, side by side` : `${describe(state.base)} of ${image.name}`);
    setPicture(byId("above"), top, `${describe(state.top)} of ${image.name}, laid over it`);
    setPicture(byId("marking"), marks, `marks: ${words}`);
    byId("above").style.opacity = amount / 100;
    byId("amount").disabled = !top;
    byId("amount-value").textContent = `${amount} %`;
    for (const row of document.querySelectorAll(".layered")) row.hidden = !state.base;
    byId("stage").hidden = !base;
    byId("no-picture").hidden = Boolean(base);
    const keys = [state.base, state.top].map((key) => key.split("@")[0]);
    byId("legend-errors").hidden = !keys.includes("errors") && !marks;
    byId("legend-heat").hidden = !keys.some((key) => key === "probability" || key === "uncertainty");
    const place = listed.indexOf(state.image);
    const position = place < 0 ? "not among the rows shown" : `${place + 1} of ${listed.length}`;
    const over = top ? `, ${amount} % ${describe(state.top)} over it` : "";
    const counts = shownClass?.counts.every((count) => count !== null) ? ` ${words}.` : "";
    byId("status").textContent = `${title(state.image)}, ${position}: ${image.files.figure ? "all side by side" : state.base || "no picture"}${over}.${counts}`;
    size();
  }
  function size() {
    const image = data.images[state.image];
    const zoom = byId("zoom").value;
    const frame = byId("frame");
    const natural = image.size ?? [byId("below").naturalWidth || 800, byId("below").naturalHeight || 300];
    const fitted = Math.min(byId("stage").clientWidth || 800, natural[0] * 4, (0.7 * innerHeight * natural[0]) / natural[1]);
    frame.style.width = zoom === "fit" ? `${Math.floor(fitted)}px` : `${natural[0] * Number(zoom)}px`;
    frame.style.aspectRatio = `${natural[0]} / ${natural[1]}`;
    frame.toggleAttribute("data-sharp", Number(zoom) >= 2 || (zoom === "fit" && fitted >= 2 * natural[0]));
  }
  const open = (number, move) => {
    if (!(number in data.images)) return;
    state.image = number;
    for (const row of rows) row.classList.toggle("current", Number(row.dataset.image) === number);
    if (![...list.options].some((one) => Number(one.value) === number)) listImages();
    list.value = number;
    const classes = data.classes[data.images[number].run];
    byId("class-choice").hidden = classes.length < 2;
    byId("class").replaceChildren(...classes.map((name, place) => option(place, name)));
    state.className = Math.min(state.className, classes.length - 1);
    byId("class").value = state.className;
    const others = twins(number);
    byId("run-choice").hidden = others.length === 0;
    byId("run").replaceChildren(...[number, ...others].sort((a, b) => data.images[a].run - data.images[b].run)
      .map((one) => option(one, data.runs[data.images[one].run])));
    byId("run").value = number;
    listLayers();
    draw();
    if (move) {
      byId("viewer").scrollIntoView();
      byId("stage").focus({ preventScroll: true });
    }
  };
  const step = (by) => {
    if (listed.length === 0) return;
    const place = listed.indexOf(state.image);
    open(place < 0 ? listed[0] : listed[(place + by + listed.length) % listed.length], false);
  };
  const nudge = (by) => {
    byId("amount").value = Number(byId("amount").value) + by;
    draw();
  };
  const keys = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    "+": () => nudge(5),
    "=": () => nudge(5),
    "-": () => nudge(-5),
    m: () => { byId("marks").checked = !byId("marks").checked; draw(); },
    b: () => {
      if (state.top && !state.top.includes("@")) show(state.top, state.base);
    },
  };
  byId("stage").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const layer = layersOf(state.image)[Number(event.key) - 1];
    if (layer) show(layer, wanted.top); else if (keys[event.key]) keys[event.key](); else return;
    event.preventDefault();
  });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  list.addEventListener("change", () => open(Number(list.value), false));
  byId("run").addEventListener("change", () => open(Number(byId("run").value), false));
  byId("class").addEventListener("change", () => { state.className = Number(byId("class").value); listLayers(); draw(); });
  byId("top").addEventListener("change", () => show(wanted.base, byId("top").value));
  byId("amount").addEventListener("input", draw);
  byId("marks").addEventListener("change", draw);
  byId("zoom").addEventListener("change", size);
  byId("below").addEventListener("load", size);
  addEventListener("resize", size);
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("button[data-image]");
    if (opener) open(Number(opener.dataset.image), true);
  });

  // ---- gallery
  const gallery = byId("gallery");
  const first = Number(gallery.dataset.first);
  const cards = [...gallery.children];
  const rowOf = new Map(rows.map((row) => [row.dataset.image, row]));
  const all = byId("all-cards");
  const showCards = () => {
    const run = byId("worst-run")?.value ?? "";
    const most = all && !all.hidden ? first : cards.length;
    let place = 0;
    for (const card of cards) {
      const fits = run === "" || card.dataset.run === run;
      card.hidden = !fits || place >= most;
      card.classList.toggle("late", place >= first);  // left out in print
      place += fits;
    }
  };
  byId("worst-by").addEventListener("change", () => {
    const choice = byId("worst-by");
    const sign = data.lower.includes(choice.value) ? -1 : 1;
    const keyed = cards.map((card) => [valueOf(rowOf.get(card.dataset.image), choice.selectedIndex), card]);
    keyed.sort((one, two) => compare(one[0], two[0], sign));
    cards.splice(0, cards.length, ...keyed.map(([, card]) => card));
    for (const card of cards) {
      const cell = rowOf.get(card.dataset.image).cells[choice.selectedIndex + columnOffset];
      card.querySelector(".card-score").textContent = `${choice.selectedOptions[0].text} ${cell.textContent}`;
    }
    gallery.append(...cards);
    showCards();
  });
  byId("worst-run")?.addEventListener("change", showCards);
  all?.addEventListener("click", () => {
    const wasHidden = cards.filter((card) => card.hidden);
    all.hidden = true;
    showCards();
    (wasHidden.find((card) => !card.hidden) ?? cards[0]).querySelector("button").focus();
  });

  if (cards.length) open(Number(cards[0].dataset.image), false);
  listImages();
  if (cards.length) draw();
})();
