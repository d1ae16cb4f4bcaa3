// Loads data, which comes as scripts because a page from disk may not read files; keeps the state in the address.
"use strict";
const igos = { data: {}, waiting: {} };

function igosData(name, value) {
  igos.data[name] = value;
  if (igos.waiting[name]) igos.waiting[name].resolve(value);
}

igos.load = (name) => {
  if (name in igos.data) return Promise.resolve(igos.data[name]);
  if (!igos.waiting[name]) {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onerror = () => {
        delete igos.waiting[name];
        reject(new Error(`${script.src} is missing`));
      };
      document.head.append(script);
    });
    igos.waiting[name] = entry;
  }
  return igos.waiting[name].promise;
};

// The state of the gallery and of the large view: all of it is in the address, so every state has a link.
igos.state = () => {
  const text = location.hash.slice(1);
  return new URLSearchParams(text.includes("=") ? text : "");
};

igos.address = (changes, base) => {
  const state = new URLSearchParams(base || igos.state());
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "" || value === undefined) state.delete(key); else state.set(key, value);
  }
  return `#${state.toString() || "gallery"}`;
};

// Changes the address without a new entry in the history.
igos.replace = (changes) => {
  const address = igos.address(changes);
  if (address === location.hash) return;
  try {
    history.replaceState(null, "", address);
  } catch {
    location.replace(address); // browsers that allow no changes of the history for a file
  }
};

igos.percent = (value) => `${(100 * value).toFixed(0)} %`;
igos.bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
igos.fixed = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");

// Draws a colour bar from 0 to a value; by default, to the largest saliency of each mask.
igos.bar = (bar, ticks, top = null) => {
  const palette = igos.bytes(igos.data.summary.palette);
  const context = bar.getContext("2d");
  const row = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) row.data.set([palette[3 * i], palette[3 * i + 1], palette[3 * i + 2], 255], 4 * i);
  context.putImageData(row, 0, 0);
  const end = top === null ? "the largest saliency of each mask" : top.toFixed(2);
  bar.setAttribute("aria-label", `Colours of the saliency from 0 to ${end}`);
  const words = (share) => (top === null ? igos.percent(share) : (share * top).toFixed(2));
  ticks.replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((share) => igos.make("span", { textContent: words(share) })));
};
igos.color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

igos.make = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && name !== "list") made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

igos.thumbnail = (place) => {
  const name = igos.data.gallery.thumbnail[place];
  return `thumbnails/${name.slice(0, 2)}/${name}.webp`;
};

igos.describe = (place) => {
  const g = igos.data.gallery;
  const parts = [g.classes[g.class[place]], `image ${g.images.name[g.image[place]]}`];
  if (g.score[place] !== null) parts.push(`score ${g.score[place].toFixed(2)}`);
  if (g.difference[place] !== null) parts.push(`insertion minus deletion ${g.difference[place].toFixed(2)}`);
  if (g.right[place] >= 0) parts.push(g.right[place] ? "right" : "wrong");
  if (g.start[place] >= 0) parts.push(`start in cell ${g.start[place]}`);
  if (g.statuses[g.status[place]] !== "ok") parts.push(`status ${g.statuses[g.status[place]]}`);
  return parts.join(", ");
};

// A small picture of an explanation that links to its large view.
igos.tile = (place, base) => {
  const g = igos.data.gallery;
  const { make, fixed } = igos;
  const marks = [];
  if (g.right[place] >= 0) {
    marks.push(make("span", { className: g.right[place] ? "right" : "wrong", textContent: g.right[place] ? "✓" : "✗" }));
  }
  if (g.statuses[g.status[place]] !== "ok") {
    marks.push(make("span", { className: "bad", textContent: g.statuses[g.status[place]] }));
  }
  if (!g.images.picture[g.image[place]]) marks.push(make("span", { className: "bad", textContent: "no picture" }));
  const link = make(
    "a", { className: "tile", href: igos.address({ view: g.row[place] }, base), title: g.images.name[g.image[place]] },
    make("img", { src: igos.thumbnail(place), alt: "", loading: "lazy", decoding: "async", draggable: false }),
    make("span", { className: "tile-name", dir: "auto", textContent: g.classes[g.class[place]] }),
    make("span", { className: "tile-numbers" },
      `${fixed(g.score[place], 2)} · ${fixed(g.difference[place], 2)}`, make("span", { className: "marks" }, ...marks)),
  );
  link.setAttribute("aria-label", igos.describe(place));
  link.dataset.place = place;
  return link;
};
