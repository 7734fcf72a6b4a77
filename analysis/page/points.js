"use strict";
// The points of a report's front explorer, and what Plotly draws of them.
const explorer = ((data) => {
  const points = data.points;
  const indices = points.trial.map((_, i) => i);
  const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d4f", "#555555"];
  // Plotly reads tags and entities in texts.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const values = (split, metric) => points[`${split}_${metric}`] || [];
  const isKnown = (value) => value !== null && value !== undefined;
  const level = (name, i) => {
    const category = data.categories[name];
    return category ? category.levels[category.codes[i]] : "";
  };
  const panelOf = (i) => ["model", "attribution", "layer", "recipe"]
    .map((name) => level(name, i)).filter(Boolean).join(" · ");
  const panels = [...new Set(indices.map(panelOf))].sort();
  const splits = ["test", "val"].filter((split) =>
    Object.keys(data.metrics).some((name) => values(split, name).some(isKnown)));

  const colours = (name) => {
    let next = 0;
    return data.categories[name].levels.map((value) => {
      if (value === "baseline") return null;
      if (name === "loss" && data.marks[value]) return data.marks[value].colour;
      return palette[next++ % palette.length];
    });
  };

  // The points of one group that no other one of it beats in both axes, the best x first. A sign
  // is -1 where less of a metric is better.
  const sign = (metric) => (data.lower.includes(metric) ? -1 : 1);
  const frontier = (members, x, y, choice) => {
    const [right, up] = [sign(choice.x), sign(choice.y)];
    const order = [...members].sort((a, b) => right * (x[b] - x[a]) || up * (y[b] - y[a]));
    let best = -Infinity;
    return order.filter((i) => up * y[i] > best && ((best = up * y[i]), true));
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

  // A choice has the metrics x and y, split, colour (a category), panel ("" for all), lines and
  // chosen (the index of a point, or null).
  const axes = (choice) => [values(choice.split, choice.x), values(choice.split, choice.y)];
  const visible = (choice) => {
    const [x, y] = axes(choice);
    return indices.filter((i) =>
      isKnown(x[i]) && isKnown(y[i]) && (!choice.panel || panelOf(i) === choice.panel));
  };

  const markers = (members, x, y, name, marker) => ({
    type: members.length > 4000 ? "scattergl" : "scatter", mode: "markers",
    name: plain(name), marker,
    x: members.map((i) => x[i]), y: members.map((i) => y[i]), customdata: members,
    text: members.map((i) => plain(points.describe[i]).replace(/, (?=[^,]*λ|epoch|guided)/g, "<br>")),
    hovertemplate: "%{text}<br>%{x:.1f} / %{y:.1f} %<extra></extra>",
  });
  const traces = (choice) => {
    const [x, y] = axes(choice);
    const { codes, levels } = data.categories[choice.colour];
    const wheel = colours(choice.colour);
    const shown = visible(choice);
    const guided = shown.filter((i) => !points.reference[i]);
    const found = [];
    if (choice.lines) {
      const key = (i) => [panelOf(i), level("loss", i), level("setting", i), points.start[i],
        level("guided_layer", i), codes[i]].join("|");
      for (const members of grouped(guided, key).values()) {
        const front = frontier(members, x, y, choice);
        found.push({
          type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false,
          x: front.map((i) => x[i]), y: front.map((i) => y[i]),
          line: { color: wheel[codes[front[0]]], width: 1.2 }, opacity: 0.7,
        });
      }
    }
    const parts = grouped(guided, (i) => codes[i]);
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
    if (shown.includes(choice.chosen)) {
      found.push({
        type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
        x: [x[choice.chosen]], y: [y[choice.chosen]],
        marker: { symbol: "circle-open", size: 20, color: css("--ink"), line: { width: 2 } },
      });
    }
    return found;
  };

  const layout = (choice) => {
    const axis = (metric) => ({
      title: { text: `${data.metrics[metric]} (%${sign(metric) < 0 ? ", less is better" : ""})` },
      gridcolor: css("--line"),
      zeroline: false, linecolor: css("--soft"),
    });
    return {
      xaxis: axis(choice.x), yaxis: axis(choice.y), hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), family: "inherit", size: 13 },
      // Plotly gives the buttons a dark bar where the paper is transparent.
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--ink") },
      margin: { l: 55, r: 10, t: 10, b: 45 }, height: 440,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      uirevision: [choice.x, choice.y, choice.split, choice.panel].join(),
    };
  };

  return { data, points, panels, splits, values, isKnown, visible, traces, layout };
})(JSON.parse(document.getElementById("explorer-data").textContent));
