"use strict";
// The front explorer of a report: points in two metrics, and the heat maps of the chosen one.
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const get = (id) => document.getElementById(id);
  const plot = get("explorer-plot");
  const points = data.points;
  const count = points.trial.length;
  const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d4f", "#555555"];
  const axes = ["f1", "epg", "iou"].filter((name) => name in data.metrics);
  const splits = ["test", "val"].filter((split) =>
    axes.some((name) => (points[`${split}_${name}`] || []).some((value) => value !== null)));
  const saved = JSON.parse(sessionStorage.getItem("explorer") || "{}");

  const fill = (id, entries, chosen) => {
    get(id).replaceChildren(...entries.map(([value, label]) => new Option(label, value)));
    const wanted = saved[id] ?? chosen;
    get(id).value = entries.some(([value]) => value === wanted) ? wanted : entries[0]?.[0] ?? "";
  };
  const panelOf = (i) => ["model", "attribution", "layer"]
    .map((name) => level(name, i)).filter(Boolean).join(" · ");
  const level = (name, i) => {
    const category = data.categories[name];
    return category ? category.levels[category.codes[i]] : "";
  };

  const metrics = Object.entries(data.metrics);
  const panels = [...new Set(Array.from({ length: count }, (_, i) => panelOf(i)))].sort();
  fill("explorer-x", metrics, "f1");
  fill("explorer-y", metrics, "epg");
  fill("explorer-split", splits.map((s) => [s, { test: "test", val: "validation" }[s]]), splits[0]);
  fill("explorer-colour", Object.entries(data.labels), "loss");
  const all = [["", panels.length > 1 ? "all panels" : "the only panel"]];
  fill("explorer-panel", panels.length > 1 ? [...all, ...panels.map((p) => [p, p])] : all,
    panels.length > 3 ? panels[0] : "");

  const colours = (name) => {
    const levels = data.categories[name].levels;
    let next = 0;
    return levels.map((value) => {
      if (value === "baseline") return null;
      if (name === "loss" && data.marks[value]) return data.marks[value].colour;
      return palette[next++ % palette.length];
    });
  };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  let shown = [];
  let chosen = saved.chosen ?? null;

  const visible = () => {
    const [x, y] = columns();
    const panel = get("explorer-panel").value;
    return Array.from({ length: count }, (_, i) => i).filter((i) =>
      x[i] !== null && x[i] !== undefined && y[i] !== null && y[i] !== undefined
      && (!panel || panelOf(i) === panel));
  };
  const columns = () => {
    const split = get("explorer-split").value;
    return ["explorer-x", "explorer-y"].map((id) => points[`${split}_${get(id).value}`] || []);
  };

  // The points of one group that no other one of it beats in both axes, in the order of x.
  const frontier = (members, x, y) => {
    const order = [...members].sort((a, b) => x[b] - x[a] || y[b] - y[a]);
    let best = -Infinity;
    return order.filter((i) => y[i] > best && ((best = y[i]), true));
  };
  const grouped = (members, key) => {
    const groups = new Map();
    for (const i of members) {
      const name = key(i);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(i);
    }
    return groups;
  };

  const traces = () => {
    const [x, y] = columns();
    const by = get("explorer-colour").value;
    const wheel = colours(by);
    const levels = data.categories[by].levels;
    shown = visible();
    const guided = shown.filter((i) => !points.reference[i]);
    const found = [];
    if (get("explorer-lines").checked) {
      const key = (i) => [panelOf(i), level("loss", i), level("setting", i), points.start[i],
        level("guided_layer", i), data.categories[by].codes[i]].join("|");
      for (const members of grouped(guided, key).values()) {
        const front = frontier(members, x, y);
        found.push({
          type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
          x: front.map((i) => x[i]), y: front.map((i) => y[i]),
          line: { color: wheel[data.categories[by].codes[front[0]]], width: 1.2 }, opacity: 0.7,
        });
      }
    }
    const parts = grouped(guided, (i) => data.categories[by].codes[i]);
    for (const code of [...parts.keys()].sort((a, b) => a - b)) {
      found.push(markers(parts.get(code), x, y, levels[code], {
        color: wheel[code], size: 9, line: { color: css("--paper"), width: 0.8 },
        symbol: parts.get(code).map((i) => data.marks[level("loss", i)]?.symbol || "circle"),
      }));
    }
    const crosses = shown.filter((i) => points.reference[i]);
    if (crosses.length) {
      found.push(markers(crosses, x, y, "baseline",
        { symbol: "x", size: 10, color: css("--paper"), line: { color: css("--ink"), width: 1.6 } }));
    }
    if (chosen !== null && shown.includes(chosen)) {
      found.push({
        type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
        x: [x[chosen]], y: [y[chosen]],
        marker: { symbol: "circle-open", size: 20, color: css("--ink"), line: { width: 2 } },
      });
    }
    return found;
  };
  const markers = (members, x, y, name, marker) => ({
    type: members.length > 4000 ? "scattergl" : "scatter", mode: "markers", name, marker,
    x: members.map((i) => x[i]), y: members.map((i) => y[i]), customdata: members,
    text: members.map((i) => points.describe[i].replace(/, (?=[^,]*λ|epoch|guided)/g, "<br>")),
    hovertemplate: "%{text}<br>%{x:.1f} / %{y:.1f} %<extra></extra>",
  });

  const layout = () => {
    const axis = (id) => ({
      title: { text: `${data.metrics[get(id).value]} (%)` }, gridcolor: css("--line"),
      zeroline: false, linecolor: css("--soft"),
    });
    return {
      xaxis: axis("explorer-x"), yaxis: axis("explorer-y"), hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), family: "inherit", size: 13 },
      // Of a transparent paper Plotly would make a dark bar.
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
      margin: { l: 55, r: 10, t: 10, b: 45 }, height: 440,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, uirevision: uirevision(),
    };
  };
  const uirevision = () => ["explorer-x", "explorer-y", "explorer-split", "explorer-panel"]
    .map((id) => get(id).value).join();

  const draw = () => Plotly.react(plot, traces(), layout(), { responsive: true, displaylogo: false });

  const refresh = () => {
    const before = performance.now();
    const done = draw();
    const list = get("explorer-point");
    list.replaceChildren(new Option("choose a checkpoint", ""),
      ...shown.map((i) => new Option(points.describe[i], i)));
    list.value = chosen !== null && shown.includes(chosen) ? chosen : "";
    get("explorer-count").textContent =
      `${shown.filter((i) => !points.reference[i]).length} checkpoints and `
      + `${shown.filter((i) => points.reference[i]).length} baselines shown`;
    remember();
    return done.then(() => { plot.dataset.answered = (performance.now() - before).toFixed(0); });
  };
  const remember = () => {
    const state = { chosen };
    for (const id of ["x", "y", "split", "colour", "panel"]) {
      state[`explorer-${id}`] = get(`explorer-${id}`).value;
    }
    sessionStorage.setItem("explorer", JSON.stringify(state));
  };

  const choose = (i) => {
    chosen = i;
    draw();
    remember();
    get("explorer-point").value = i;
    const [before, after] = points.maps[i];
    const line = (split) => metrics
      .map(([name, label]) => [label, (points[`${split}_${name}`] || [])[i]])
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([label, value]) => `${label} ${value.toFixed(1)}`).join(", ");
    const parts = [Object.assign(document.createElement("p"), { textContent: points.describe[i] })];
    for (const [split, name] of [["val", "validation"], ["test", "test"]]) {
      if (line(split)) {
        parts.push(Object.assign(document.createElement("p"),
          { textContent: `${name}: ${line(split)} %`, className: "soft" }));
      }
    }
    const strips = points.reference[i] ? [[before, "baseline"]]
      : [[before, "before guidance"], [after, "after guidance"]];
    for (const [key, label] of strips) {
      if (!data.strips[key]) continue;
      const figure = document.createElement("figure");
      const alt = `Heat maps of test images, ${label}: ${points.describe[i]}`;
      figure.append(Object.assign(new Image(), { src: data.strips[key], alt }),
        Object.assign(document.createElement("figcaption"), { textContent: label }));
      parts.push(figure);
    }
    if (!strips.some(([key]) => data.strips[key])) {
      parts.push(Object.assign(document.createElement("p"),
        { textContent: "No heat maps of this checkpoint are in this page.", className: "soft" }));
    }
    get("explorer-detail").replaceChildren(...parts);
  };

  for (const id of ["x", "y", "split", "colour", "panel"]) {
    get(`explorer-${id}`).addEventListener("change", refresh);
  }
  get("explorer-lines").addEventListener("change", refresh);
  get("explorer-point").addEventListener("change", (event) => {
    if (event.target.value !== "") choose(Number(event.target.value));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  refresh().then(() => {
    plot.on("plotly_click", (event) => {
      const i = event.points[0].customdata;
      if (i !== undefined) choose(i);
    });
    if (chosen !== null && chosen < count) choose(chosen);
    plot.dataset.ready = "true";
  });
})();
