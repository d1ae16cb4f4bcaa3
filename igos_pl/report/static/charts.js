// The charts, the sortable tables and the examples of findings.
"use strict";
(() => {
  const { make, fixed, color } = igos;
  const summary = igos.data.summary;
  const plots = [];

  const axes = (label, values) => [
    { label, stroke: color("--text"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") }, font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 20, size: 34 },
    { stroke: color("--text"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") }, font: "12px system-ui, sans-serif", size: 44, values },
  ];
  const tint = (value, share) => `color-mix(in srgb, ${value} ${share}%, transparent)`;

  igos.curveSeries = () => [
    {},
    { label: "deletion", stroke: color("--deletion"), width: 2, dash: [7, 4], points: { show: false } },
    { label: "insertion", stroke: color("--insertion"), width: 2, points: { show: false } },
  ];
  igos.curveLabel = () =>
    summary.detections ? "deleted or inserted part (1 = three times the object)" : "deleted or inserted part of the image";
  igos.axes = axes;

  // Draws a chart as wide as its place, and again when that or the theme changes.
  igos.plot = (place, height, options, data) => {
    const chart = { place, plot: null };
    const draw = () => {
      const width = Math.floor(place.clientWidth);
      if (!width) return;
      if (chart.plot) chart.plot.destroy();
      chart.width = width;
      chart.plot = new uPlot({ width, height, ...options() }, data(), place);
      chart.plot.setLegend({ idx: null }); // values without a pointer, in place of dashes
      if (chart.drawn) chart.drawn(chart.plot);
    };
    chart.draw = draw;
    new ResizeObserver(() => {
      if (Math.floor(place.clientWidth) !== chart.width) draw();
    }).observe(place);
    plots.push(chart);
    draw();
    return chart;
  };
  document.addEventListener("igos-theme", () => plots.forEach((chart) => chart.draw()));

  const histogram = (name) => {
    const place = document.getElementById(`histogram-${name}`);
    if (!place) return;
    const { counts, edges } = summary.histograms[name];
    const total = counts.reduce((sum, count) => sum + count, 0);
    const middles = counts.map((_, i) => (edges[i] + edges[i + 1]) / 2);
    const options = () => ({
      scales: { x: { time: false, range: [edges[0], edges[edges.length - 1]] }, y: { range: (u, low, high) => [0, Math.max(1, high * 1.05)] } },
      axes: axes("", (u, values) => values.map((v) => (Number.isInteger(v) ? v.toLocaleString("en") : ""))),
      legend: { show: true, live: true },
      cursor: { y: false, drag: { setScale: false } },
      series: [
        { label: name === "difference" ? "ins. − del." : name, value: (u, v) => (v === null ? "all" : fixed(v, 2)) },
        { label: "explanations", stroke: color("--accent"), fill: tint(color("--accent"), 45), width: 1, paths: uPlot.paths.bars({ size: [1, 100] }), points: { show: false }, value: (u, v) => (v === null ? total : v).toLocaleString("en") },
      ],
    });
    igos.plot(place, 170, options, () => [middles, counts]);
  };

  const curves = () => {
    const place = document.getElementById("curves");
    const groups = Object.keys(summary.curves);
    if (!place || !groups.length) return;
    let group = groups[0];
    const rowsOf = (name) => summary.curves[name].deletion.rows;
    const data = () => {
      const { deletion, insertion } = summary.curves[group];
      return [summary.axis, deletion.mean, insertion.mean, deletion.high, deletion.low, insertion.high, insertion.low];
    };
    const last = (plot, series) => plot.data[series].at(-1); // in the legend, while no pointer is over the chart
    const edge = (name) => ({ label: name, stroke: "transparent", width: 0, points: { show: false } });
    const options = () => ({
      scales: { x: { time: false, range: [0, 1] }, y: { range: (u, low, high) => [Math.min(0, low), Math.max(0.05, high * 1.05)] } },
      axes: axes(igos.curveLabel(), null),
      cursor: { drag: { setScale: false } },
      series: [
        { label: "part", value: (u, v) => igos.percent(v ?? last(u, 0)) },
        ...igos.curveSeries().slice(1).map((one) => ({ ...one, value: (u, v, series) => fixed(v ?? last(u, series)) })),
        ...["deletion +", "deletion −", "insertion +", "insertion −"].map(edge),
      ],
      bands: [
        { series: [3, 4], fill: tint(color("--deletion"), 22) },
        { series: [5, 6], fill: tint(color("--insertion"), 22) },
      ],
    });
    const chart = igos.plot(place, 300, options, data);
    const table = () => {
      const part = (curve, i) => `${fixed(curve.mean[i])}${curve.half[i] === null ? "" : ` ± ${fixed(curve.half[i])}`}`;
      const { deletion, insertion } = summary.curves[group];
      const rows = summary.axis.map((x, i) => i).filter((i) => i % 5 === 0);
      document.getElementById("curves-table").replaceChildren(
        make("table", {},
          make("caption", { textContent: `Mean score, ${group}: ${rowsOf(group).toLocaleString("en")} explanations` }),
          make("thead", {}, make("tr", {}, ...["part", "deletion", "insertion"].map((t) => make("th", { scope: "col", textContent: t })))),
          make("tbody", {}, ...rows.map((i) => make("tr", {},
            make("th", { scope: "row", textContent: igos.percent(summary.axis[i]) }),
            make("td", { textContent: part(deletion, i) }), make("td", { textContent: part(insertion, i) }))))),
      );
    };
    const buttons = groups.map((name) => make("button", { type: "button", textContent: `${name} (${rowsOf(name).toLocaleString("en")})` }));
    const choose = (name) => {
      group = name;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", groups[i] === name));
      chart.draw();
      table();
    };
    buttons.forEach((button, i) => button.addEventListener("click", () => choose(groups[i])));
    const places = document.getElementById("curve-groups");
    places.append(...buttons);
    places.hidden = groups.length < 2;
    choose(group);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    if (body.rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = make("button", { type: "button", textContent: cell.textContent, title: "Sort" });
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        const key = (row) => {
          const value = row.cells[column].dataset.value;
          return value === undefined ? row.cells[column].textContent.trim() : value === "nan" ? -Infinity : Number(value);
        };
        const rows = [...body.rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => (typeof a === "string" ? a.localeCompare(b) : a - b) * (down ? -1 : 1));
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...rows.map(([, row]) => row));
      });
    });
  };

  curves();
  ["difference", "deletion", "insertion"].forEach(histogram);
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".examples").forEach((place) => {
    if (place.dataset.places) place.append(...place.dataset.places.split(",").map((at) => igos.tile(Number(at), new URLSearchParams())));
  });
})();
