"use strict";
// The form of a report's front explorer: what the plot shows, and the details of a chosen point.
(() => {
  const { data, points, panels, splits, values, isKnown, visible, traces, layout } = explorer;
  const CHOICES = ["x", "y", "split", "colour", "panel"];
  const SPLITS = { test: "test", val: "validation" };
  const get = (name) => document.getElementById(`explorer-${name}`);
  const element = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const saved = JSON.parse(sessionStorage.getItem("explorer") || "{}");
  const metrics = Object.entries(data.metrics);
  const plot = get("plot");
  let shown = [];
  let chosen = saved.chosen ?? null;

  const fill = (name, entries, usual) => {
    get(name).replaceChildren(...entries.map(([value, label]) => new Option(label, value)));
    const wanted = saved[name] ?? usual;
    get(name).value = entries.some(([value]) => value === wanted) ? wanted : entries[0]?.[0] ?? "";
  };
  fill("x", metrics, "f1");
  fill("y", metrics, "epg");
  fill("split", splits.map((split) => [split, SPLITS[split]]), splits[0]);
  fill("colour", Object.entries(data.labels), "loss");
  const all = [["", panels.length > 1 ? "all panels" : "the only panel"]];
  fill("panel", panels.length > 1 ? [...all, ...panels.map((p) => [p, p])] : all,
    panels.length > 3 ? panels[0] : "");

  const selected = () => Object.fromEntries(CHOICES.map((name) => [name, get(name).value]));
  const draw = () => {
    const choice = { ...selected(), lines: get("lines").checked, chosen };
    return Plotly.react(plot, traces(choice), layout(choice),
      { responsive: true, displaylogo: false });
  };
  const remember = () =>
    sessionStorage.setItem("explorer", JSON.stringify({ ...selected(), chosen }));

  const refresh = () => {
    const before = performance.now();
    shown = visible(selected());
    const done = draw();
    get("point").replaceChildren(new Option("choose a checkpoint", ""),
      ...shown.map((i) => new Option(points.describe[i], i)));
    get("point").value = chosen !== null && shown.includes(chosen) ? chosen : "";
    // A baseline is drawn once in each panel, and is one network.
    const references = shown.filter((i) => points.reference[i]);
    const baselines = new Set(references.map((i) => points.start[i])).size;
    const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
    get("count").textContent = `${counted(shown.length - references.length, "checkpoint")} and `
      + `${counted(baselines, "baseline")} shown`;
    remember();
    return done.then(() => { plot.dataset.answered = (performance.now() - before).toFixed(0); });
  };

  const sentence = (split, i) => {
    const found = metrics.map(([name, label]) => [label, values(split, name)[i]])
      .filter(([, value]) => isKnown(value))
      .map(([label, value]) => `${label} ${value.toFixed(1)}`);
    return found.length ? `${SPLITS[split]}: ${found.join(", ")} %` : "";
  };
  const strip = (key, label, i) => {
    const alt = `Heat maps of test images, ${label}: ${points.describe[i]}`;
    const figure = document.createElement("figure");
    figure.append(element("img", { src: data.strips[key], alt }),
      element("figcaption", { textContent: label }));
    return figure;
  };
  const choose = (i) => {
    chosen = i;
    draw();
    remember();
    get("point").value = i;
    const [before, after] = points.maps[i];
    const strips = (points.reference[i] ? [[before, "baseline"]]
      : [[before, "before guidance"], [after, "after guidance"]])
      .filter(([key]) => data.strips[key]);
    const lines = ["val", "test"].map((split) => sentence(split, i)).filter(Boolean);
    if (!strips.length) lines.push("No heat maps of this checkpoint are in this page.");
    get("detail").replaceChildren(
      element("p", { textContent: points.describe[i] }),
      ...lines.map((text) => element("p", { textContent: text, className: "soft" })),
      ...strips.map(([key, label]) => strip(key, label, i)));
  };

  for (const name of [...CHOICES, "lines"]) get(name).addEventListener("change", refresh);
  get("point").addEventListener("change", (event) => {
    if (event.target.value !== "") choose(Number(event.target.value));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  refresh().then(() => {
    plot.on("plotly_click", (event) => {
      const i = event.points[0].customdata;
      if (i !== undefined) choose(i);
    });
    if (chosen !== null && chosen < points.trial.length) choose(chosen);
    plot.dataset.ready = "true";
  });
})();
