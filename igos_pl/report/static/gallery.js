// The gallery: filters, order, and only those tiles in the page that can be seen.
"use strict";
(() => {
  const { make } = igos;
  const g = igos.data.gallery;
  const tiles = document.getElementById("tiles");
  if (!tiles) return;
  const form = document.getElementById("filters");
  const total = g.row.length;
  const PAGE = 10000; // tiles: browsers do not draw a page of any height
  const HEIGHT = 226, WIDTH = 172, GAP = 10;
  const METRICS = [
    ["score", "score"], ["difference", "insertion − deletion"], ["deletion", "deletion"], ["insertion", "insertion"],
    ["size", "size of the object"], ["largest", "largest saliency"], ["salient", "area with half of the saliency"],
    ["energy_box", "saliency in the box"], ["energy_mask", "saliency in the instance mask"],
    ["diversity", "diversity of starts"],
  ].filter(([name]) => g[name] && g[name].some((v) => v !== null));

  // ---- the form
  const options = (name, entries) => {
    const select = form.elements[name];
    select.append(...entries.map(([value, text]) => make("option", { value, textContent: text })));
    if (entries.length < 3 && name !== "sort") select.parentElement.hidden = true;
  };
  const present = new Set(g.class);
  const words = g.images.name.map((name) => name.toLowerCase());
  const classWords = g.classes.map((name) => name.toLowerCase());
  options("class", [["", "all"], ...[...present].sort((a, b) => g.classes[a].localeCompare(g.classes[b])).map((i) => [String(i), g.classes[i]])]);
  const rights = new Set(g.right);
  options("right", [["", "all"], ...[[1, "right"], [0, "wrong"], [-1, "not annotated"]].filter(([v]) => rights.has(v)).map(([v, t]) => [String(v), t])]);
  options("status", [["", "all"], ...g.statuses.map((name, i) => [String(i), name])]);
  const reasons = Object.fromEntries(Object.entries(g.reasons).map(([name, places]) => [name, new Set(places)]));
  options("why", [["", "any"], ...Object.keys(reasons).map((name) => [name, name])]);
  if (Object.keys(reasons).length) form.elements.why.parentElement.hidden = false;
  options("sort", [["", "image"], ...METRICS, ["class", "class"]]);
  const ranges = document.querySelector("#ranges .ranges");
  for (const [name, text] of METRICS) {
    const input = (end, word) => make("input", { type: "number", step: "0.01", name: `${end}-${name}`, placeholder: word, "aria-label": `${text}, ${end === "min" ? "at least" : "at most"}` });
    ranges.append(make("fieldset", {}, make("legend", { textContent: text }), input("min", "at least"), input("max", "at most")));
  }
  const KEYS = ["q", "class", "right", "status", "why", "sort", "order", ...METRICS.flatMap(([n]) => [`min-${n}`, `max-${n}`])];

  // ---- which explanations, in which order
  let shown = [];
  let wanted = null;
  const choose = (state) => {
    const key = KEYS.map((name) => state.get(name) || "").join("\0");
    if (key === wanted) return false;
    wanted = key;
    const tests = [];
    const q = (state.get("q") || "").trim().toLowerCase();
    if (q) tests.push((i) => words[g.image[i]].includes(q) || classWords[g.class[i]].includes(q));
    for (const name of ["class", "right", "status"]) {
      if (state.get(name)) {
        const value = Number(state.get(name));
        tests.push((i) => g[name][i] === value);
      }
    }
    if (state.get("why")) tests.push((i) => reasons[state.get("why")] !== undefined && reasons[state.get("why")].has(i));
    for (const [name] of METRICS) {
      const low = parseFloat(state.get(`min-${name}`)), high = parseFloat(state.get(`max-${name}`));
      if (!Number.isNaN(low)) tests.push((i) => g[name][i] !== null && g[name][i] >= low);
      if (!Number.isNaN(high)) tests.push((i) => g[name][i] !== null && g[name][i] <= high);
    }
    shown = [];
    for (let i = 0; i < total; i++) if (tests.every((test) => test(i))) shown.push(i);
    const sort = state.get("sort");
    const sign = state.get("order") === "down" ? -1 : 1;
    if (sort === "class") {
      const names = [...g.classes.keys()].sort((a, b) => g.classes[a].localeCompare(g.classes[b]));
      const rank = new Map(names.map((name, i) => [name, i]));
      shown.sort((a, b) => (rank.get(g.class[a]) - rank.get(g.class[b])) * sign || a - b);
    } else if (METRICS.some(([name]) => name === sort)) {
      const values = g[sort];
      shown.sort((a, b) => {
        if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
        return (values[a] - values[b]) * sign || a - b;
      });
    } else if (sign < 0) {
      shown.reverse();
    }
    return true;
  };
  igos.neighbour = (place, step) => {
    const at = shown.indexOf(place);
    return at < 0 ? shown[0] : shown[at + step];
  };

  // ---- the tiles that can be seen
  let page = 0, columns = 1, current = 0, drawn = new Map();
  const pages = () => Math.max(1, Math.ceil(shown.length / PAGE));
  const inPage = () => shown.slice(page * PAGE, (page + 1) * PAGE);
  const layout = () => {
    columns = Math.max(2, Math.floor((tiles.clientWidth + GAP) / (WIDTH + GAP)));
    const width = (tiles.clientWidth - (columns - 1) * GAP) / columns;
    tiles.style.height = `${Math.ceil(inPage().length / columns) * (HEIGHT + GAP)}px`;
    return width;
  };
  const draw = () => {
    const width = layout();
    const list = inPage();
    const top = tiles.getBoundingClientRect().top;
    const step = HEIGHT + GAP;
    const first = Math.max(0, Math.floor((-top - 600) / step)) * columns;
    const last = Math.min(list.length, Math.ceil((innerHeight - top + 600) / step) * columns);
    const needed = new Set();
    for (let at = first; at < last; at++) needed.add(at);
    if (current < list.length) needed.add(current); // what has the focus stays
    for (const [at, item] of drawn) {
      if (!needed.has(at)) {
        item.remove();
        drawn.delete(at);
      }
    }
    for (const at of [...needed].sort((a, b) => a - b)) {
      let item = drawn.get(at);
      if (!item) {
        item = make("li", {}, igos.tile(list[at]));
        item.setAttribute("aria-setsize", list.length);
        item.setAttribute("aria-posinset", at + 1);
        item.dataset.at = at;
        // In the order of reading, also for screen readers.
        const later = [...tiles.children].find((other) => Number(other.dataset.at) > at);
        tiles.insertBefore(item, later || null);
        drawn.set(at, item);
      }
      item.firstChild.tabIndex = at === current ? 0 : -1;
      item.style.width = `${width}px`;
      item.style.transform = `translate(${(at % columns) * (width + GAP)}px, ${Math.floor(at / columns) * step}px)`;
    }
  };
  let asked = false;
  const later = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  addEventListener("scroll", later, { passive: true });
  new ResizeObserver(later).observe(tiles);

  igos.focusTile = (place) => {
    const at = shown.indexOf(place);
    if (at < 0) return;
    turn(Math.floor(at / PAGE));
    focusAt(at % PAGE);
  };
  const focusAt = (at) => {
    const number = inPage().length;
    if (!number) return;
    current = Math.max(0, Math.min(number - 1, at));
    draw();
    const top = tiles.getBoundingClientRect().top + Math.floor(current / columns) * (HEIGHT + GAP);
    if (top < 60 || top + HEIGHT > innerHeight - 10) scrollBy({ top: top - innerHeight / 3, behavior: "instant" });
    draw();
    drawn.get(current).firstChild.focus({ preventScroll: true });
  };
  tiles.addEventListener("focusin", (event) => {
    const item = event.target.closest("li");
    if (item) current = Number(item.dataset.at);
  });
  tiles.addEventListener("keydown", (event) => {
    const rows = Math.max(1, Math.floor(innerHeight / (HEIGHT + GAP)) - 1);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -rows * columns, PageDown: rows * columns, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    focusAt(steps[event.key] === -Infinity ? 0 : steps[event.key] === Infinity ? inPage().length - 1 : current + steps[event.key]);
  });

  const bar = document.getElementById("pages");
  const turn = (to) => {
    page = Math.max(0, Math.min(pages() - 1, to));
    bar.hidden = pages() < 2;
    if (!bar.hidden) {
      const button = (text, step) => make("button", { type: "button", textContent: text, disabled: page + step < 0 || page + step >= pages(), onclick: () => { igos.replace({ page: page + step || null }); show(); } });
      bar.replaceChildren(button("← Previous", -1), `Page ${page + 1} of ${pages()}`, button("Next →", 1));
    }
  };
  const clear = () => {
    drawn.forEach((item) => item.remove());
    drawn = new Map();
  };

  const show = () => {
    const state = igos.state();
    const changed = choose(state);
    const before = page;
    turn(Number(state.get("page")) || 0);
    if (changed || page !== before) {
      current = 0;
      clear();
    }
    for (const name of KEYS) {
      const field = form.elements[name];
      if (field && field !== document.activeElement) field.value = state.get(name) || (name === "order" ? "up" : "");
    }
    if (KEYS.some((name) => /^m(in|ax)-/.test(name) && state.get(name))) document.getElementById("ranges").open = true;
    form.elements.order.parentElement.hidden = false;
    if (changed) {
      const words = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} explanations`;
      document.getElementById("count").textContent = shown.length ? words : `${words}: nothing fits these filters`;
    }
    draw();
  };
  const fromForm = (event) => {
    const field = event.target;
    if (!field.name) return;
    const value = field.name === "order" && field.value === "up" ? null : field.value;
    igos.replace({ [field.name]: value, page: null });
    show();
    // Links of the tiles keep the filters.
    clear();
    draw();
  };
  form.addEventListener("input", fromForm);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    igos.replace(Object.fromEntries([...KEYS, "page"].map((name) => [name, null])));
    form.elements.q.value = "";
    show();
    clear();
    draw();
  });
  addEventListener("hashchange", show);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.to-gallery");
    if (link) setTimeout(() => document.getElementById("gallery").scrollIntoView(), 0);
  });
  igos.bar(document.getElementById("gallery-bar"), document.getElementById("gallery-ticks"));
  show();
  const start = igos.state();
  if ([...start.keys()].length && !start.get("view")) document.getElementById("gallery").scrollIntoView();
})();
