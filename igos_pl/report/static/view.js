// The large view of one explanation.
"use strict";
(() => {
  const { make, fixed, percent } = igos;
  const g = igos.data.gallery;
  const summary = igos.data.summary;
  const dialog = document.getElementById("view");
  if (!g || !g.row.length) return;
  const $ = (id) => document.getElementById(id);
  const placeOf = new Map(g.row.map((row, place) => [row, place]));
  const palette = igos.bytes(summary.palette);
  const groups = new Map(); // the explanations of each image
  g.image.forEach((image, place) => {
    if (!groups.has(image)) groups.set(image, []);
    groups.get(image).push(place);
  });
  const SIDE = 448;
  let place = -1, shown = null, opener = null;

  const number = (name, otherwise) => {
    const value = parseFloat(igos.state().get(name));
    return Number.isNaN(value) ? otherwise : Math.max(0, Math.min(1, value));
  };

  // ---- what belongs to an explanation
  const image = (source) => new Promise((resolve) => {
    const made = new Image();
    made.onload = () => resolve(made);
    made.onerror = () => resolve(null);
    made.src = source;
  });
  const fetched = async (at) => {
    const rows = await igos.load(`masks-${Math.floor(at / g.perFile)}`);
    const row = rows[at % g.perFile];
    const bytes = igos.bytes(row.mask);
    const cells = new Uint16Array(bytes.buffer);
    const saliency = Float32Array.from(cells, (value) => value / 65535);
    const regions = row.regions && { ...row.regions, rank: new Uint16Array(igos.bytes(row.regions.rank).buffer) };
    const order = [...saliency.keys()].sort((a, b) => saliency[b] - saliency[a] || a - b);
    const name = g.images.picture[g.image[at]];
    const [picture, baseline] = await Promise.all([
      name ? image(`pictures/${name.slice(0, 2)}/${name}.webp`) : null,
      row.baseline ? image(`data:image/webp;base64,${row.baseline}`) : null,
    ]);
    const [width, height] = row.size;
    const factor = SIDE / Math.max(1, width, height);
    return {
      ...row, saliency, order, regions, picture, baseline,
      width: picture ? picture.naturalWidth : Math.max(1, Math.round(width * factor)),
      height: picture ? picture.naturalHeight : Math.max(1, Math.round(height * factor)),
    };
  };

  // ---- drawing
  const canvas = (width, height) => make("canvas", { width, height });
  const frameOf = (width, height) => {
    const [x1, y1, x2, y2] = shown.frame;
    return [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height];
  };
  const largest = g.largest.reduce((a, b) => Math.max(a, b), 0); // of all masks
  const top = () => Math.max(summary.smallestRange, $("own").checked ? g.largest[place] : largest);

  // Rounds halves to even numbers, as Python and NumPy do.
  const rounded = (value) => (value % 1 === 0.5 || value % 1 === -0.5 ? 2 * Math.round(value / 2) : Math.round(value));

  // The cell of each pixel along one side, from 0 to n - 1 with fractions; null outside of the network's input. The
  // centres of the outer cells lie on the outer pixels of the input, as in the figures (Frame.cells_on_original).
  const cellsAlong = (pixels, from, to, input) => {
    const start = rounded(from), end = Math.max(start + 1, rounded(to));
    return Array.from({ length: pixels }, (_, x) => {
      if (x < start || x >= end) return null;
      const place = ((x + 0.5 - start) / (end - start)) * input - 0.5;
      return (Math.max(0, Math.min(input - 1, place)) / Math.max(1, input - 1)) * (g.cells - 1);
    });
  };

  // Saliency is bilinear between the cells, and few cells have sharp borders. Each colour of the palette has an opacity.
  const OPAQUE = Array(256).fill(255);
  const RISING = OPAQUE.map((whole, color) => whole * (color / 255) ** summary.rise);
  const drawSaliency = (target, opacities) => {
    const { width, height, saliency } = shown;
    const context = target.getContext("2d");
    const pixels = context.createImageData(width, height);
    const [x1, y1, x2, y2] = shown.frame;
    const [rows, columns] = shown.input;
    const us = cellsAlong(width, x1 * width, x2 * width, columns), vs = cellsAlong(height, y1 * height, y2 * height, rows);
    const n = g.cells, scale = 255 / top();
    for (let y = 0; y < height; y++) {
      const v = vs[y];
      for (let x = 0; x < width; x++) {
        const u = us[x];
        let value = 0;
        if (u !== null && v !== null) {
          const i = Math.min(n - 2, Math.floor(u)), j = Math.min(n - 2, Math.floor(v));
          if (g.sharp) value = saliency[rounded(v) * n + rounded(u)];
          else {
            const a = u - i, b = v - j, at = j * n + i;
            value = (saliency[at] * (1 - a) + saliency[at + 1] * a) * (1 - b) + (saliency[at + n] * (1 - a) + saliency[at + n + 1] * a) * b;
          }
        }
        const color = Math.max(0, Math.min(255, Math.round(value * scale))), c = color * 3, p = (y * width + x) * 4;
        pixels.data[p] = palette[c]; pixels.data[p + 1] = palette[c + 1]; pixels.data[p + 2] = palette[c + 2];
        pixels.data[p + 3] = opacities[color];
      }
    }
    context.putImageData(pixels, 0, 0);
  };

  const share = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  const inRegions = (count) => {
    const { sizes } = shown.regions;
    const cells = sizes.slice(0, count).reduce((sum, size) => sum + size, 0);
    return `${count} of ${sizes.length} region${sizes.length === 1 ? "" : "s"} (${share(cells / g.maskSize ** 2)} of the input)`;
  };
  const inCells = (count, whole) => (g.sharp ? `${count} of ${g.cells ** 2} cells` : `${share(count / g.cells ** 2)} of the ${whole}`);
  // The cells that a part of the curve takes, and their amount in words. Regions are taken as a whole.
  const taken = (part) => {
    const count = Math.round(part * shown.whole);
    if (!shown.regions) return { cells: shown.order.slice(0, count), words: inCells(count, "input") };
    const { rank, places } = shown.regions;
    const regions = places.filter((place) => place < count).length;
    return { cells: [...rank.keys()].filter((i) => rank[i] < regions), words: inRegions(regions) };
  };

  // The first or the second source, by whether a cell is among the most important ones.
  const drawPart = (target, important, inserted) => {
    const { width, height, picture, baseline } = shown;
    const n = g.cells;
    const cells = canvas(n, n);
    const pixels = cells.getContext("2d").createImageData(n, n);
    for (const i of important) pixels.data[i * 4 + 3] = 255;
    cells.getContext("2d").putImageData(pixels, 0, 0);
    const [left, up, across, down] = frameOf(width, height);
    const clip = (context) => {
      context.beginPath();
      context.rect(left, up, across, down);
      context.clip();
    };
    const paint = (context, what) => {
      if (what === "picture" && picture) context.drawImage(picture, 0, 0, width, height);
      else if (what === "baseline" && baseline) {
        const x1 = Math.max(0, left), y1 = Math.max(0, up);
        context.drawImage(baseline, x1, y1, Math.min(width, left + across) - x1, Math.min(height, up + down) - y1);
      } else {
        context.fillStyle = what === "picture" ? "#ddd" : "#555";
        context.fillRect(0, 0, width, height);
      }
    };
    const changed = canvas(width, height);
    const over = changed.getContext("2d");
    paint(over, inserted ? "picture" : "baseline");
    over.globalCompositeOperation = "destination-in";
    if (n > 1) over.drawImage(cells, 0.5, 0.5, n - 1, n - 1, left, up, across, down);
    else over.drawImage(cells, left, up, across, down);
    const context = target.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.save();
    clip(context);
    paint(context, inserted ? "baseline" : "picture");
    context.drawImage(changed, 0, 0);
    context.restore();
  };

  const boxOf = () => {
    const box = shown.box;
    if (!box) return [];
    const [x1, y1, x2, y2] = box.map((v) => `${100 * v}%`);
    const made = make("div", { className: "box" });
    Object.assign(made.style, { left: x1, top: y1, width: `calc(${x2} - ${x1})`, height: `calc(${y2} - ${y1})` });
    return [made];
  };
  const stage = (id, label, ...layers) => {
    const made = $(id);
    made.style.aspectRatio = `${shown.width} / ${shown.height}`;
    made.style.setProperty("--ratio", shown.width / shown.height);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", label);
    made.replaceChildren(...layers, ...boxOf());
  };

  const drawColors = () => {
    const heat = canvas(shown.width, shown.height);
    drawSaliency(heat, OPAQUE);
    const over = canvas(shown.width, shown.height);
    drawSaliency(over, shown.picture ? RISING : OPAQUE);
    over.id = "over";
    const name = igos.describe(place);
    const under = shown.picture ? [shown.picture] : [];
    if (shown.picture) shown.picture.alt = "";
    stage("stage-overlay", `Saliency over the image: ${name}`, ...under, over);
    stage("stage-saliency", `Saliency alone: ${name}. Its largest value is ${fixed(g.largest[place], 2)}.`, heat);
    igos.bar($("bar"), $("ticks"), top());
  };
  // The image below the colours is grey, so that all colour is saliency. Without saliency, it has its own colours.
  const drawOpacity = () => {
    const opacity = number("opacity", summary.opacity);
    $("opacity").value = opacity;
    $("opacity-value").textContent = percent(opacity);
    if (!shown.picture) return;
    $("over").style.opacity = opacity;
    shown.picture.classList.toggle("grey", opacity > 0);
  };
  let parts = [];
  const drawAt = () => {
    const at = number("at", 0.1);
    $("at").value = at;
    $("at-value").textContent = percent(at);
    const { cells, words } = taken(at);
    parts.forEach(([target, inserted]) => drawPart(target, cells, inserted));
    const known = shown.deletion.length > 0;
    const score = (kind, digits) => {
      const curve = shown[kind];
      const x = at * (curve.length - 1), i = Math.min(curve.length - 2, Math.floor(x)), nearest = Math.round(x);
      const measured = Math.abs(x - nearest) < 1e-6 && shown.measured[kind].includes(nearest);
      return `${fixed(curve[i] + (curve[i + 1] - curve[i]) * (x - i), digits)}${measured ? "" : " (interpolated)"}`;
    };
    $("deleted").textContent = `deleted: ${words}${known ? `, score ${score("deletion", 2)}` : ""}`;
    $("inserted").textContent = `inserted: ${words}${known ? `, score ${score("insertion", 2)}` : ""}`;
    const text = known ? `At ${percent(at)}: the score is ${score("deletion", 3)} after deletion, ${score("insertion", 3)} after insertion.` : "The curves were not computed.";
    $("at-scores").textContent = text;
    $("at").setAttribute("aria-valuetext", text);
    if (chart && chart.plot) chart.plot.redraw(false);
  };

  // ---- the curves, with a line that can be dragged
  let chart = null;
  const line = (plot) => {
    const x = plot.valToPos(number("at", 0.1), "x", true);
    const { top: up, height } = plot.bbox;
    plot.ctx.save();
    plot.ctx.strokeStyle = plot.ctx.fillStyle = igos.color("--text");
    plot.ctx.lineWidth = 2 * devicePixelRatio;
    plot.ctx.beginPath();
    plot.ctx.moveTo(x, up);
    plot.ctx.lineTo(x, up + height);
    plot.ctx.stroke();
    plot.ctx.beginPath();
    plot.ctx.arc(x, up + height / 2, 6 * devicePixelRatio, 0, 7);
    plot.ctx.fill();
    plot.ctx.restore();
  };
  const draggable = (plot) => {
    const move = (event) => {
      const left = event.clientX - plot.over.getBoundingClientRect().left;
      igos.replace({ at: Math.max(0, Math.min(1, plot.posToVal(left, "x"))).toFixed(2) });
      drawAt();
    };
    plot.over.style.cursor = "ew-resize";
    plot.over.style.touchAction = "none";
    plot.over.addEventListener("pointerdown", (event) => {
      plot.over.setPointerCapture(event.pointerId);
      move(event);
    });
    plot.over.addEventListener("pointermove", (event) => {
      if (event.buttons) move(event);
    });
  };
  const drawCurves = () => {
    const host = $("view-curves");
    host.hidden = !shown.deletion.length;
    if (host.hidden) return;
    if (chart) {
      chart.draw();
      return;
    }
    const options = () => ({
      scales: { x: { time: false, range: [0, 1] }, y: { range: (u, low, high) => [Math.min(0, low), Math.max(1, high)] } },
      axes: igos.axes(igos.curveLabel(), null),
      legend: { live: false },
      cursor: { show: false },
      series: [{}, ...igos.curveSeries().slice(1).map((one) => ({
        ...one, points: { show: true, size: 5, fill: one.stroke, filter: () => shown.measured[one.label] },
      }))],
      hooks: { draw: [line], ready: [draggable] },
    });
    chart = igos.plot(host, 200, options, () => [summary.axis, shown.deletion, shown.insertion]);
  };

  // ---- the words
  const drawFacts = () => {
    const i = g.image[place];
    const right = { 1: "right", 0: "wrong" }[g.right[place]];
    const facts = [
      ["class", g.classes[g.class[place]]], ["annotated class", g.images.truth[i]], ["prediction", right],
      ["score", fixed(g.score[place])], ["insertion − deletion", fixed(g.difference[place])],
      ["deletion", fixed(g.deletion[place])], ["insertion", fixed(g.insertion[place])],
      ["largest saliency", fixed(g.largest[place])],
      ["half of the saliency is in", g.salient[place] === null ? null : shown.regions ? inRegions(shown.regions.half) : inCells(Math.round(g.salient[place] * g.cells ** 2), "cells")],
      ["object's share of the image", g.size && g.size[place] !== null ? `${(100 * g.size[place]).toFixed(1)} %` : null],
      ...["energy_box", "energy_mask"].map((name, k) => [["saliency in the box", "saliency in the instance mask"][k], g[name] && g[name][place] !== null ? fixed(g[name][place]) : null]),
      ["status", g.statuses[g.status[place]]],
      ["chosen as", Object.entries(g.reasons).filter(([, places]) => places.includes(place)).map(([name]) => name).join(", ")],
      ["image", g.images.name[i]], ["file", shown.path],
      ["row of the result", String(g.row[place])],
    ];
    $("view-facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { dir: "auto", textContent: value }))));
    $("view-class").textContent = g.classes[g.class[place]];
    $("view-image").textContent = g.images.name[i];
    const coarser = shown.regions ? " The borders of the regions are therefore coarser here." : "";
    const reduced = g.cells === g.maskSize ? "" : ` The mask has ${g.maskSize} × ${g.maskSize} cells; it is shown with ${g.cells} × ${g.cells}.${coarser}`;
    const note = shown.note ? `No current picture: ${shown.note}.` : "";
    $("view-note").hidden = !(note || reduced);
    $("view-note").textContent = `${note}${reduced}`.trim();
    const others = groups.get(i);
    const starts = others.filter((at) => g.target[at] === g.target[place]);
    const rest = others.filter((at) => g.target[at] !== g.target[place]);
    const strip = (title, list) => (list.length ? [make("h3", { textContent: title }), make("div", { className: "examples" }, ...list.map((at) => {
      const tile = igos.tile(at);
      if (at === place) tile.setAttribute("aria-current", "true");
      if (g.start[at] >= 0) tile.querySelector(".tile-numbers").prepend(`cell ${g.start[at]} · `);
      return tile;
    }))] : []);
    $("view-starts").replaceChildren(
      ...strip("Starts of this target", starts.length > 1 ? starts : []),
      ...strip("Other targets of this image", rest),
    );
  };

  // ---- opening, moving and closing
  const show = async () => {
    const row = igos.state().get("view");
    if (row === null) {
      if (dialog.open) dialog.close();
      return;
    }
    const next = placeOf.get(Number(row));
    if (next === undefined) {
      $("view-class").textContent = `Row ${row} is not in this gallery`;
      igos.replace({ view: null });
      return;
    }
    if (!dialog.open) {
      opener = document.activeElement;
      dialog.showModal();
      document.documentElement.classList.add("viewing");
    }
    if (next !== place) {
      place = next;
      let found;
      try {
        found = await fetched(place);
      } catch (error) {
        $("view-note").hidden = false;
        $("view-note").textContent = `This explanation cannot be shown: ${error.message}. Copy the whole folder of the report.`;
        return;
      }
      if (place !== next) return; // another one was opened in the meantime
      shown = found;
      dialog.dataset.place = place;
      parts = [["stage-deletion", false], ["stage-insertion", true]].map(([id, inserted]) => {
        const made = canvas(shown.width, shown.height);
        stage(id, inserted ? "The most important cells put into the baseline" : "The image without its most important cells", made);
        return [made, inserted];
      });
      drawColors();
      drawFacts();
      drawCurves();
      [-1, 1].forEach((step) => {
        const other = igos.neighbour(place, step);
        if (other !== undefined) igos.load(`masks-${Math.floor(other / g.perFile)}`).catch(() => {});
        $(step < 0 ? "previous" : "next").disabled = other === undefined;
      });
    }
    if (!shown) return;
    drawOpacity();
    drawAt();
  };
  const go = (step) => {
    const other = igos.neighbour(place, step);
    if (other === undefined) return;
    igos.replace({ view: g.row[other] });
    show();
  };
  dialog.addEventListener("close", () => {
    document.documentElement.classList.remove("viewing");
    const last = place;
    place = -1;
    igos.replace({ view: null, at: null });
    if (opener && opener.isConnected && opener !== document.body && !opener.closest("#tiles")) opener.focus();
    else igos.focusTile(last);
  });
  dialog.addEventListener("click", (event) => {
    const { left, right, top: up, bottom } = dialog.getBoundingClientRect();
    const outside = event.clientX < left || event.clientX > right || event.clientY < up || event.clientY > bottom;
    if (event.target === dialog && outside) dialog.close();
    // Other explanations replace this one, so that going back leaves the large view.
    const link = event.target.closest("#view-starts a");
    if (link) {
      event.preventDefault();
      igos.replace({ view: g.row[Number(link.dataset.place)] });
      show().then(() => dialog.scrollTo(0, 0));
    }
  });
  $("close").addEventListener("click", () => dialog.close());
  $("previous").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      go(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  $("opacity").addEventListener("input", () => { igos.replace({ opacity: $("opacity").value }); drawOpacity(); });
  $("at").addEventListener("input", () => { igos.replace({ at: $("at").value }); drawAt(); });
  $("own").addEventListener("change", () => { drawColors(); drawOpacity(); });
  addEventListener("hashchange", show);
  show();
})();
