// The map of models in a browser: one canvas with hover, search, lasso, legend, zoom, keyboard and touch.
// mountMap needs an element and a model that has get, set, save_changes, on and off: that of a widget, or an object
// that holds the same values in a page of its own. Nothing is fetched; names are always text, never markup.

const MOVE = 250; // milliseconds of a move from frame to frame
const NEAR = 14; // pixels within which a mark is hit
const FEW = 30; // models that are all named
const MANY = 60; // models in view beyond which groups are named first
const SOME = 250; // models in view that are named where there is room
const SHOWN_SHAPES = 4;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK JP', sans-serif";

const STYLE = `
.lmmap-map { --ink: #303030; --soft: #606060; --ground: #ffffff; --line: #c8c8c8; --press: #dbe9f8; --focus: #1a6fd0;
  background: var(--ground); box-sizing: border-box; color: var(--ink); display: flex; flex-direction: column;
  font: 13px/1.35 ${FONT}; min-height: 100%; min-width: 260px; padding: 6px; position: relative; width: 100%; }
.lmmap-map.lmmap-dark { --ink: #e2e2e2; --soft: #a8a8a8; --ground: #141414; --line: #505050; --press: #1f3c5c;
  --focus: #6ab0ff; color-scheme: dark; }
.lmmap-map *, .lmmap-map *::before { box-sizing: border-box; }
.lmmap-map [hidden] { display: none !important; }
.lmmap-map .bar { align-items: center; display: flex; flex-wrap: wrap; gap: 4px 10px; padding-bottom: 6px; }
.lmmap-map .bar > span { align-items: center; display: inline-flex; gap: 4px; }
.lmmap-map label { color: var(--soft); }
.lmmap-map input, .lmmap-map select, .lmmap-map button { background: var(--ground); border: 1px solid var(--line);
  border-radius: 4px; color: var(--ink); font: inherit; height: auto; margin: 0; min-height: 26px; padding: 2px 7px; }
.lmmap-map input { width: 150px; }
.lmmap-map select { max-width: 130px; }
.lmmap-map button { cursor: pointer; }
.lmmap-map button:hover { border-color: var(--soft); }
.lmmap-map button[aria-pressed="true"] { background: var(--press); border-color: var(--focus); }
.lmmap-map :focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.lmmap-map .count { color: var(--soft); }
.lmmap-map .count:empty { display: none; }
.lmmap-map .title { font-weight: 600; }
.lmmap-map .title:empty, .lmmap-map .caption:empty { display: none; }
.lmmap-map .body { display: flex; flex: 1 1 auto; gap: 10px; min-height: 500px; }
.lmmap-map .stage { border: 1px solid var(--line); border-radius: 4px; flex: 1 1 auto; min-width: 0;
  overflow: hidden; position: relative; }
.lmmap-map canvas { cursor: crosshair; display: block; height: 100%; left: 0; position: absolute; top: 0;
  touch-action: none; user-select: none; width: 100%; }
.lmmap-map canvas.grab { cursor: grabbing; }
.lmmap-map canvas:focus-visible { outline-offset: -3px; }
.lmmap-map .legend { flex: 0 0 auto; max-height: 500px; max-width: 210px; overflow: auto; padding: 2px; }
.lmmap-map .legend:empty { display: none; }
.lmmap-map .legend h4 { color: var(--soft); font-size: 12px; font-weight: 600; margin: 2px 0 4px; }
.lmmap-map .legend button { align-items: center; border-color: transparent; display: flex; gap: 5px; min-height: 22px;
  padding: 0 5px; text-align: start; width: 100%; }
.lmmap-map .legend bdi { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lmmap-map .legend .entry { align-items: center; display: flex; gap: 5px; padding: 0 5px; }
.lmmap-map .legend svg { flex: none; }
.lmmap-map .legend .number { color: var(--soft); margin-inline-start: auto; padding-inline-start: 6px; }
.lmmap-map .scale { height: 150px; margin: 8px 0 12px 6px; position: relative; }
.lmmap-map .scale i { bottom: 0; left: 0; position: absolute; top: 0; width: 12px; }
.lmmap-map .scale span { left: 18px; position: absolute; transform: translateY(50%); white-space: nowrap; }
.lmmap-map .corner { bottom: 6px; display: flex; gap: 3px; opacity: 0.9; position: absolute; right: 6px; }
.lmmap-map .tip { background: var(--ground); border: 1px solid var(--line); border-radius: 4px;
  box-shadow: 0 2px 8px rgb(0 0 0 / 25%); left: 0; max-width: min(320px, 90%); overflow-wrap: anywhere;
  padding: 6px 9px; pointer-events: none; position: absolute; top: 0; z-index: 3; }
.lmmap-map .tip dl { display: grid; gap: 0 8px; grid-template-columns: auto auto; justify-content: start;
  margin: 3px 0 0; }
.lmmap-map .tip dt { color: var(--soft); font-weight: normal; }
.lmmap-map .tip dd { margin: 0; }
.lmmap-map .message { background: var(--ground); border: 1px solid #d08a00; border-radius: 4px; left: 50%;
  max-width: 90%; padding: 6px 12px; position: absolute; top: 10px; transform: translateX(-50%); z-index: 2; }
.lmmap-map .help { background: var(--ground); border: 1px solid var(--line); border-radius: 4px; inset: 8px 8px auto;
  max-height: calc(100% - 52px); overflow: auto; padding: 8px 12px; position: absolute; z-index: 4; }
.lmmap-map .help table { border-collapse: collapse; }
.lmmap-map .help td { border: none; padding: 1px 12px 1px 0; text-align: start; vertical-align: top; }
.lmmap-map .caption, .lmmap-map .status { color: var(--soft); font-size: 12px; padding-top: 4px; }
.lmmap-map .status { min-height: 20px; }
.lmmap-map.narrow .body { flex-direction: column; }
.lmmap-map.narrow .stage { min-height: 360px; }
.lmmap-map.narrow .legend { max-height: 130px; max-width: none; }
.lmmap-map.narrow .legend ul, .lmmap-map.narrow .legend ol { display: flex; flex-wrap: wrap; }
.lmmap-map.narrow .legend button { width: auto; }
.lmmap-map .legend ul, .lmmap-map .legend ol { list-style: none; margin: 0 0 8px; padding: 0; }
`;

const HELP = [
  ["Point at a mark", "its name and attributes"],
  ["Click; Shift + click", "select a model; add it or take it out"],
  ["Drag; Shift + drag", "lasso: select all models inside; add them"],
  ["Wheel once the map was clicked, Ctrl + wheel, pinch, + and −", "zoom"],
  ["Right drag, Space + drag, two fingers, Shift + arrow keys", "move the map"],
  ["0 or Home", "show all of it again"],
  ["Arrow keys", "go to the next model in that direction"],
  ["Page Down, Page Up", "go through all models, in the order of the table"],
  ["Enter; Shift + Enter", "select the model gone to; add it or take it out"],
  ["A; Shift + A", "select all models in view; add them"],
  ["/", "search; Enter there selects what matches"],
  ["Esc", "close this, or empty search, legend and selection"],
];

// ---- numbers, names, shapes ---------------------------------------------------------------------------------------

function numbers(Kind, data) {
  if (Array.isArray(data)) return Kind.from(data);
  const bytes = ArrayBuffer.isView(data) ? data : new Uint8Array(data);
  return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// One line without control characters.
function tidy(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ");
}

// Whatever direction a name has, what stands around it keeps its own.
function isolated(text) {
  return `\u2068${text}\u2069`;
}

function shorten(text, length) {
  const letters = Array.from(tidy(text));
  if (letters.length <= length) return letters.join("");
  const tail = Math.floor((length - 1) / 2);
  return `${letters.slice(0, length - 1 - tail).join("")}…${letters.slice(letters.length - tail).join("")}`;
}

// 135M, 1.5B; what is small keeps five digits.
function human(value) {
  if (typeof value !== "number") return tidy(value);
  const [size, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"]].find(([s]) => Math.abs(value) >= s) ?? [1, ""];
  return `${Number((value / size).toPrecision(letter ? 3 : 5))}${letter}`.replace("-", "−");
}

function grouped(count) {
  return count.toLocaleString("en-US");
}

// Even-odd rule, the polygon closed by its first corner.
function isInside(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i];
    const [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

// Corners of a mark, for the area that matplotlib gives it; a circle has none.
function corners(mark, r) {
  const d = r * 1.25;
  switch (mark) {
    case "s": return [[-r, -r], [r, -r], [r, r], [-r, r]].map(([x, y]) => [x * 0.92, y * 0.92]);
    case "^": return [[0, -d], [d, r], [-d, r]];
    case "D": return [[0, -d], [d, 0], [0, d], [-d, 0]];
    case "x": {
      const [a, b] = [r * 0.4, r * 1.05];
      return [[0, -a], [b - a, -b], [b, a - b], [a, 0], [b, b - a], [b - a, b],
        [0, a], [a - b, b], [-b, b - a], [-a, 0], [-b, a - b], [a - b, -b]];
    }
    default: return null;
  }
}

function luminance(color) {
  const parts = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16) / 255);
  const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// A colour as text: towards the ink until its contrast with the ground is 4.5.
function readable(color, isDark) {
  const ground = isDark ? luminance("#141414") : 1;
  let parts = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  const hex = () => `#${parts.map((c) => Math.round(c).toString(16).padStart(2, "0")).join("")}`;
  const contrast = () => {
    const [high, low] = [luminance(hex()), ground].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  while (contrast() < 4.5) parts = parts.map((c) => (isDark ? c + (255 - c) * 0.07 : c * 0.95));
  return hex();
}

function themeIsDark() {
  const { body, documentElement } = document;
  if (body.dataset.jpThemeLight !== undefined) return body.dataset.jpThemeLight === "false";
  if (body.classList.contains("vscode-light") || body.classList.contains("vscode-high-contrast-light")) return false;
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast")) return true;
  if (documentElement.getAttribute("theme") === "dark") return true; // Colab
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- pens: the same strokes on a canvas and in an SVG -------------------------------------------------------------

class CanvasPen {
  constructor(context) {
    this.context = context;
  }

  mark(x, y, r, mark, { fill, edge, width = 0.7, alpha = 1 }) {
    const c = this.context;
    c.globalAlpha = alpha;
    c.beginPath();
    const points = corners(mark, r);
    if (points === null) c.arc(x, y, r, 0, 2 * Math.PI);
    else points.forEach(([dx, dy], i) => (i ? c.lineTo(x + dx, y + dy) : c.moveTo(x + dx, y + dy)));
    c.closePath();
    if (fill) {
      c.fillStyle = fill;
      c.fill();
    }
    c.strokeStyle = edge;
    c.lineWidth = width;
    c.stroke();
    c.globalAlpha = 1;
  }

  line(x1, y1, x2, y2, ink) {
    const c = this.context;
    c.strokeStyle = ink;
    c.lineWidth = 0.8;
    c.beginPath();
    c.moveTo(x1, y1);
    c.lineTo(x2, y2);
    c.stroke();
  }

  box(x, y, width, height, fill) {
    this.context.fillStyle = fill;
    this.context.fillRect(x, y, width, height);
  }

  text(x, y, string, { ink, bold = false, size = 12, halo = "" }) {
    const c = this.context;
    c.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
    c.textBaseline = "middle";
    c.direction = "ltr";
    c.textAlign = "left";
    if (halo) {
      c.strokeStyle = halo;
      c.lineWidth = 3;
      c.lineJoin = "round";
      c.strokeText(isolated(string), x, y);
    }
    c.fillStyle = ink;
    c.fillText(isolated(string), x, y);
  }
}

class SvgPen {
  constructor(width, height) {
    this.root = svgElement("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT });
  }

  add(tag, attributes) {
    this.root.append(svgElement(tag, attributes));
    return this.root.lastChild;
  }

  mark(x, y, r, mark, { fill, edge, width = 0.7, alpha = 1 }) {
    const look = { fill: fill || "none", stroke: edge, "stroke-width": width, opacity: alpha };
    this.root.append(svgMark(x, y, r, mark, look));
  }

  line(x1, y1, x2, y2, ink) {
    this.add("line", { x1: brief(x1), y1: brief(y1), x2: brief(x2), y2: brief(y2), stroke: ink, "stroke-width": 0.8 });
  }

  box(x, y, width, height, fill) {
    this.add("rect", { x: brief(x), y: brief(y), width: brief(width), height: brief(height), fill });
  }

  text(x, y, string, { ink, bold = false, size = 12, halo = "" }) {
    const around = halo ? { stroke: halo, "stroke-width": 3, "paint-order": "stroke", "stroke-linejoin": "round" } : {};
    const place = { x: brief(x), y: brief(y), "dominant-baseline": "central", "font-size": size, fill: ink };
    this.add("text", { ...place, ...around, ...(bold ? { "font-weight": 600 } : {}) }).textContent = isolated(string);
  }
}

function brief(value) {
  return Math.round(value * 100) / 100;
}

function svgElement(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function svgMark(x, y, r, mark, look) {
  const points = corners(mark, r);
  if (points === null) return svgElement("circle", { cx: brief(x), cy: brief(y), r: brief(r), ...look });
  const at = points.map(([dx, dy]) => `${brief(x + dx)},${brief(y + dy)}`).join(" ");
  return svgElement("polygon", { points: at, ...look });
}

// An element with properties, or attributes where the name holds a dash or is `role` or `for`, and what is in it.
function element(tag, given = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...inside);
  return made;
}

// ---- colours and marks --------------------------------------------------------------------------------------------

function shade(style, step) {
  return `#${style.viridis.slice(6 * step, 6 * step + 6)}`;
}

// Which of the first groups each model is in, -1 for none of them.
function membership(column, most) {
  const place = new Map(column.groups.slice(0, most).map((name, i) => [name, i]));
  return column.values.map((value) => (value === null ? -1 : place.get(value) ?? -1));
}

// Fill and mark of every model for the chosen columns. Where marks tell the shape, only eight hues are left for groups.
function paint(table, color, shape, isDark) {
  const { style, columns, ids } = table;
  const [grey, plain] = isDark ? ["#6a6a6a", "#b0b0b0"] : [style.grey, "#404040"];
  const painted = { fill: ids.map(() => plain), mark: ids.map(() => "o"), group: null, entries: [], kind: "none" };
  const [byColor, byShape] = [columns[color], columns[shape]];
  const hues = style.hues.length;
  if (byColor?.kind === "group") {
    painted.group = membership(byColor, byShape ? hues : hues * style.marks.length);
    painted.fill = painted.group.map((g) => (g < 0 ? grey : style.hues[g % hues]));
    if (!byShape) painted.mark = painted.group.map((g) => (g < 0 ? "o" : style.marks[Math.floor(g / hues)]));
    painted.entries = byColor.groups.slice(0, byShape ? hues : undefined).map((name, g) => (
      { name, group: g, fill: style.hues[g % hues], mark: byShape ? "o" : style.marks[Math.floor(g / hues)] }));
    if (painted.group.includes(-1)) painted.entries.push({ name: "", group: -1, fill: grey, mark: "o" });
  } else if (byColor) {
    painted.fill = byColor.shade.map((step) => (step === null ? grey : shade(style, step)));
  }
  painted.kind = byColor?.kind ?? "none";
  painted.shapes = [];
  if (byShape) {
    const group = membership(byShape, SHOWN_SHAPES);
    painted.mark = group.map((g) => (g < 0 ? "x" : style.marks[g]));
    painted.shapes = byShape.groups.slice(0, SHOWN_SHAPES).map((name, g) => ({ name, group: g, mark: style.marks[g] }));
    if (group.includes(-1)) painted.shapes.push({ name: "", group: -1, mark: "x" });
    for (const entry of painted.shapes) entry.size = (rows) => rows.filter((r) => group[r] === entry.group).length;
  }
  painted.text = painted.fill.map(() => "");
  painted.ink = (row) => (painted.text[row] ||= painted.group ? readable(painted.fill[row], isDark) : "");
  return painted;
}

// ---- labels: boxes that do not overlap ----------------------------------------------------------------------------

const CELL = 5;

class Room {
  constructor(width, height) {
    [this.columns, this.rows] = [Math.ceil(width / CELL), Math.ceil(height / CELL)];
    [this.width, this.height] = [width, height];
    this.points = new Uint8Array(this.columns * this.rows);
    this.labels = new Uint8Array(this.columns * this.rows);
  }

  taken(x, y, r) {
    this.each(x - r, y - r, 2 * r, 2 * r, (cell) => (this.points[cell] = 1));
  }

  each(x, y, width, height, see) {
    const cell = (place, most) => clamp(Math.floor(place / CELL), 0, most - 1);
    const [left, right] = [cell(x, this.columns), cell(x + width, this.columns)];
    const [top, bottom] = [cell(y, this.rows), cell(y + height, this.rows)];
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) see(row * this.columns + column);
    }
  }

  // Marks that a box would cover; no number where it would cover a label or leave the map.
  cost(x, y, width, height) {
    if (x < 1 || y < 1 || x + width > this.width - 1 || y + height > this.height - 1) return Infinity;
    let covered = 0;
    this.each(x, y, width, height, (cell) => (covered += this.labels[cell] ? Infinity : this.points[cell]));
    return 5 * covered;
  }

  // The best place round a point, nearer ones first.
  place(x, y, r, width, height, rings) {
    let best = { cost: Infinity };
    for (let ring = 0; ring < rings; ring++) {
      const far = r + 3 + 13 * ring;
      for (const [ux, uy] of DIRECTIONS) {
        const left = x + ux * far - (ux > 0.1 ? 0 : ux < -0.1 ? width : width / 2);
        const top = y + uy * far - (uy > 0.8 ? 0 : uy < -0.8 ? height : height / 2);
        const middle = top + height / 2;
        const leader = ring ? [clamp(x, left, left + width), clamp(y, middle - 6, middle + 6)] : null;
        const cost = this.cost(left, top, width, height) + 3 * ring + (leader ? this.crossed(x, y, ...leader) : 0);
        if (cost < best.cost) best = { cost, left, top, leader };
      }
      if (best.cost <= 3 * ring) break;
    }
    return best;
  }

  // What it costs that a line from a mark runs across labels.
  crossed(x1, y1, x2, y2) {
    let cells = 0;
    this.along(x1, y1, x2, y2, (cell) => (cells += this.labels[cell]));
    return 6 * cells;
  }

  along(x1, y1, x2, y2, see) {
    const steps = Math.ceil(Math.hypot(x2 - x1, y2 - y1) / CELL);
    for (let i = 0; i < steps; i++) this.each(x1 + ((x2 - x1) * i) / steps, y1 + ((y2 - y1) * i) / steps, 0, 0, see);
  }

  keep(x, y, width, height) {
    this.each(x, y, width, height, (cell) => (this.labels[cell] = 1));
  }

  keepLine(x1, y1, x2, y2) {
    this.along(x1, y1, x2, y2, (cell) => (this.points[cell] = 1));
  }
}

const DIRECTIONS = [[1, 0], [-1, 0], [0, -1], [0, 1], [0.7, -0.7], [-0.7, -0.7], [0.7, 0.7], [-0.7, 0.7]];

// The member of a group where most of it is: of the fullest ninth-part neighbourhood of a 24 x 24 grid.
function densest(rows, at, width, height) {
  const bins = new Map();
  const bin = (v, size) => Math.floor((24 * v) / size);
  for (const row of rows) {
    const [x, y] = at(row);
    const [bx, by] = [bin(x, width), bin(y, height)];
    for (let dx = -1; dx <= 1; dx++) {
      for (let dy = -1; dy <= 1; dy++) {
        const key = (bx + dx) * 64 + by + dy;
        const found = bins.get(key) ?? { count: 0, x: 0, y: 0 };
        bins.set(key, { count: found.count + 1, x: found.x + x, y: found.y + y });
      }
    }
  }
  const full = [...bins.values()].reduce((a, b) => (b.count > a.count ? b : a));
  const away = (row) => Math.hypot(at(row)[0] - full.x / full.count, at(row)[1] - full.y / full.count);
  return rows.reduce((a, b) => (away(b) < away(a) ? b : a));
}

// ---- the map ------------------------------------------------------------------------------------------------------

const PATIENCE = 6000; // milliseconds
const SILENT = "The kernel is busy or gone: what follows from it waits. Hover, search and lasso work.";

export function mountMap(root, model) {
  return new ModelsMap(root, model).unmount;
}

class ModelsMap {
  constructor(root, model) {
    [this.root, this.model] = [root, model];
    this.table = model.get("table");
    this.n = this.table.ids.length;
    this.rowOf = new Map(this.table.ids.map((id, row) => [id, row]));
    this.names = this.table.names.map(tidy);
    this.searched = this.table.names.map((name, row) => `${name}\n${this.table.ids[row]}`.toLowerCase());
    this.at = new Float64Array(2 * this.n); // where marks are on their way
    this.from = new Float64Array(2 * this.n);
    this.goal = new Float64Array(2 * this.n);
    this.rows = []; // shown
    this.isShown = new Uint8Array(this.n);
    this.seq = -1;
    this.free = null; // a view that the reader chose: centre and units per pixel
    this.hover = -1;
    this.tip = -1;
    this.pointers = new Map();
    this.gesture = null;
    this.adding = false;
    this.widths = new Map();
    this.cleanups = [];
    this.build();
    this.listen();
    this.follow();
    this.unmount = () => {
      this.isGone = true;
      for (const clean of this.cleanups) clean();
      this.root.replaceChildren();
    };
  }

  // -- what is in the page

  build() {
    const id = `lmmap-${Math.random().toString(36).slice(2)}`;
    const button = (label, name, press) => element("button", { type: "button", textContent: label, title: name,
      "aria-label": name, onclick: press });
    this.canvas = element("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "map of models",
      "aria-describedby": `${id}-status` });
    this.tipBox = element("div", { className: "tip", hidden: true, "aria-hidden": "true" });
    this.messageBox = element("div", { className: "message", role: "alert", hidden: true });
    this.help = element("div", { className: "help", id: `${id}-help`, hidden: true, role: "region",
      "aria-label": "Help", tabIndex: -1 }, this.helpTable());
    this.helpButton = button("?", "Help: what mouse and keys do", () => this.showHelp(this.help.hidden));
    this.helpButton.setAttribute("aria-expanded", "false");
    this.helpButton.setAttribute("aria-controls", this.help.id);
    this.corner = element("div", { className: "corner" }, button("−", "Zoom out", () => this.zoom(1 / 1.4)),
      button("+", "Zoom in", () => this.zoom(1.4)), button("Reset", "Show all of the map", () => this.reset()),
      this.helpButton);
    const layers = [this.canvas, this.corner, this.messageBox, this.tipBox, this.help];
    this.stage = element("div", { className: "stage" }, ...layers);
    this.legend = element("div", { className: "legend", role: "group", "aria-label": "Legend" });
    this.title = element("div", { className: "title", dir: "auto" });
    this.caption = element("div", { className: "caption", dir: "auto" });
    this.status = element("div", { className: "status", id: `${id}-status`, role: "status", "aria-live": "polite" });
    this.search = element("input", { type: "search", placeholder: "Search names", "aria-label": "Search names",
      autocomplete: "off", spellcheck: false });
    this.count = element("span", { className: "count" });
    this.colorBox = this.selectOf("color", `${id}-color`, () => true);
    this.shapeBox = this.selectOf("shape", `${id}-shape`, (column) => column.kind === "group");
    this.addButton = button("Add", "Add to the selection instead of replacing it", () => this.setAdding(!this.adding));
    this.addButton.setAttribute("aria-pressed", "false");
    const labelled = (text, box) => element("span", {}, element("label", { for: box.id, textContent: text }), box);
    this.bar = element("div", { className: "bar" },
      element("span", {}, this.search, this.count),
      labelled("Colour", this.colorBox),
      ...(this.shapeBox.options.length > 1 ? [labelled("Shape", this.shapeBox)] : []),
      element("span", {}, this.addButton, button("Clear", "Empty search, legend and selection", () => this.clear())),
      element("span", {}, button("Copy ids", "Copy the ids of the selected models", () => this.copyIds()),
        button("CSV", "Save the selected models as a table, or all if none is selected", () => this.saveCsv()),
        button("PNG", "Save the map as a picture", () => this.savePng()),
        button("SVG", "Save the map as a drawing", () => this.saveSvg())));
    this.style = element("style");
    this.box = element("div", { className: "lmmap-map", "data-lm-suppress-shortcuts": "true" },
      this.bar, this.title, element("div", { className: "body" }, this.stage, this.legend), this.caption, this.status);
    this.root.replaceChildren(this.style, this.box);
  }

  helpTable() {
    const line = (cells) => element("tr", {}, ...cells.map((textContent) => element("td", { textContent })));
    return element("table", {}, ...HELP.map(line));
  }

  selectOf(trait, id, fits) {
    const shown = Object.entries(this.table.columns).filter(([, column]) => fits(column)
      && (column.kind !== "group" || column.groups.length));
    const options = shown.map(([name, column]) => element("option", { value: name, textContent: tidy(column.title) }));
    const box = element("select", { id }, element("option", { value: "", textContent: "none" }), ...options);
    box.onchange = () => this.set({ [trait]: box.value, ...(trait === "color" ? { groups: [] } : {}) });
    return box;
  }

  // -- what happens outside: the model, the theme, the size

  follow() {
    const when = (name, see) => {
      this.model.on(`change:${name}`, see);
      this.cleanups.push(() => this.model.off(`change:${name}`, see));
      see();
    };
    this.isDark = themeIsDark();
    when("color", () => this.repaint());
    when("shape", () => this.repaint());
    when("groups", () => this.refilter());
    when("frame", () => this.takeFrame());
    when("selected", () => this.reselect());
    when("chosen", () => this.rechoose());
    when("query", () => this.requery());
    when("message", () => this.showMessage());
    when("heard", () => this.answered());
    this.cleanups.push(() => clearTimeout(this.silence));
    when("picture", () => {
      const picture = this.model.get("picture") ?? "";
      this.style.textContent = STYLE + (/^[\w-]+$/.test(picture) ? `\n#${picture} { display: none; }` : "");
    });
    const themed = () => {
      const isDark = themeIsDark();
      if (isDark === this.isDark) return;
      this.isDark = isDark;
      this.repaint();
    };
    const watch = new MutationObserver(themed);
    for (const place of [document.body, document.documentElement]) {
      watch.observe(place, { attributes: true, attributeFilter: ["data-jp-theme-light", "class", "theme"] });
    }
    const asked = matchMedia("(prefers-color-scheme: dark)");
    asked.addEventListener("change", themed);
    const sized = new ResizeObserver(() => {
      this.box.classList.toggle("narrow", this.box.clientWidth < 560);
      this.draw(); // at once: a canvas that changes its size is empty
    });
    sized.observe(this.stage);
    sized.observe(this.box);
    this.cleanups.push(() => watch.disconnect(), () => sized.disconnect(),
      () => asked.removeEventListener("change", themed));
  }

  set(values) {
    const asked = this.model.get("heard") === undefined ? {} : { asked: (this.model.get("asked") ?? 0) + 1 };
    for (const [name, value] of Object.entries({ ...values, ...asked })) this.model.set(name, value);
    this.model.save_changes();
    this.answered();
  }

  // A kernel tells the number of the last question that it has heard; a page without a kernel asks none.
  answered() {
    clearTimeout(this.silence);
    const waits = (this.model.get("asked") ?? 0) > (this.model.get("heard") ?? 0);
    if (!waits) this.isSilent = false;
    if (waits) this.silence = setTimeout(() => { this.isSilent = true; this.showMessage(); }, PATIENCE);
    this.showMessage();
  }

  showMessage() {
    this.messageBox.textContent = this.model.get("message") || (this.isSilent ? SILENT : "");
    this.messageBox.hidden = !this.messageBox.textContent;
  }

  takeFrame() {
    const frame = this.model.get("frame");
    if (!frame?.index || frame.seq <= this.seq) return;
    const [index, xy] = [numbers(Int32Array, frame.index), numbers(Float32Array, frame.xy)];
    const isFirst = this.seq < 0;
    const before = this.isShown.slice();
    const home = isFirst ? null : this.homeNow();
    this.seq = frame.seq;
    this.isShown.fill(0);
    this.rows = Array.from(index);
    this.rows.forEach((row, k) => {
      this.isShown[row] = 1;
      for (const axis of [0, 1]) {
        const place = 2 * row + axis;
        this.goal[place] = xy[2 * k + axis];
        if (!before[row]) this.at[place] = this.goal[place];
        this.from[place] = this.at[place];
      }
    });
    const isStill = isFirst || matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.began = isStill ? -Infinity : performance.now() - 16; // the first picture already shows a step
    [this.bounds, this.boundsFrom] = [this.boundsOf(), home];
    [this.title.textContent, this.caption.textContent] = [frame.title ?? "", frame.caption ?? ""];
    if (this.hover >= 0 && !this.isShown[this.hover]) this.hover = -1;
    if (this.tip >= 0 && !this.isShown[this.tip]) this.tip = -1;
    this.sortRows();
    this.showLegend();
    this.requery();
  }

  boundsOf() {
    const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
    for (const row of this.rows) {
      for (const axis of [0, 1]) {
        low[axis] = Math.min(low[axis], this.goal[2 * row + axis]);
        high[axis] = Math.max(high[axis], this.goal[2 * row + axis]);
      }
    }
    return this.rows.length ? [low[0], low[1], high[0], high[1]] : [-1, -1, 1, 1];
  }

  repaint() {
    this.box.classList.toggle("lmmap-dark", this.isDark);
    const [color, shape] = [this.model.get("color") ?? "", this.model.get("shape") ?? ""];
    [this.colorBox.value, this.shapeBox.value] = [color, shape];
    this.painted = paint(this.table, color, shape, this.isDark);
    this.colors = this.isDark ? { ink: "#e2e2e2", ground: "#141414", edge: "#141414" }
      : { ink: "#303030", ground: "#ffffff", edge: "#ffffff" };
    this.refilter();
    this.sortRows();
    this.showLegend();
    this.schedule();
  }

  // Grey first, then the largest group, so that small ones lie on top.
  sortRows() {
    const { group } = this.painted;
    this.order = group ? [...this.rows].sort((a, b) => group[a] - group[b]) : this.rows;
  }

  refilter() {
    const pressed = new Set(this.model.get("groups") ?? []);
    const names = new Map((this.painted?.entries ?? []).map((entry) => [entry.group, entry.name]));
    this.pressed = new Set([...names.values()].filter((name) => pressed.has(name)));
    const { group } = this.painted ?? {};
    this.passes = (row) => !this.pressed.size || this.pressed.has(names.get(group[row]));
    for (const button of this.legend.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(this.pressed.has(button.value)));
    }
    this.requery();
  }

  reselect() {
    this.selected = new Set((this.model.get("selected") ?? []).map((id) => this.rowOf.get(id)));
    this.tell();
    this.schedule();
  }

  rechoose() {
    this.chosen = this.rowOf.get(this.model.get("chosen")) ?? -1;
    this.tell();
    this.schedule();
  }

  requery() {
    const query = this.model.get("query") ?? "";
    if (this.search.value !== query) this.search.value = query;
    const wanted = query.trim().toLowerCase();
    const found = this.rows.filter((row) => this.searched[row].includes(wanted) && this.passes(row));
    this.matches = wanted ? new Set(found) : null;
    this.count.textContent = this.matches ? `${grouped(this.matches.size)} found` : "";
    this.tell();
    this.schedule();
  }

  // -- the legend

  showLegend() {
    const { entries, kind, shapes, group } = this.painted;
    const parts = [];
    const heading = (name) => element("h4", { dir: "auto", textContent: tidy(this.table.columns[name].title) });
    const swatch = (fill, mark) => {
      const drawing = svgElement("svg", { width: 14, height: 14, "aria-hidden": "true" });
      drawing.append(svgMark(7, 7, 4.5, mark, { fill }));
      return drawing;
    };
    const shown = (size) => element("span", { className: "number", textContent: grouped(size) });
    this.sizes = new Map();
    if (kind === "group") {
      for (const row of this.rows) this.sizes.set(group[row], (this.sizes.get(group[row]) ?? 0) + 1);
      const lines = entries.filter((entry) => this.sizes.has(entry.group)).map((entry) => {
        const name = entry.name === "" ? "other" : tidy(entry.name);
        const button = element("button", { type: "button", value: entry.name,
          title: `${name}: show these only, or no longer`, "aria-pressed": String(this.pressed.has(entry.name)),
          onclick: () => this.toggleGroup(entry.name) },
        swatch(entry.fill, entry.mark), element("bdi", { textContent: name }), shown(this.sizes.get(entry.group)));
        return element("li", {}, button);
      });
      parts.push(heading(this.colorBox.value), element("ul", {}, ...lines));
    } else if (kind !== "none") {
      parts.push(heading(this.colorBox.value), this.scaleBar(this.table.columns[this.colorBox.value]));
    }
    if (shapes.length) {
      const lines = shapes.map((entry) => element("li", { className: "entry" }, swatch("currentColor", entry.mark),
        element("bdi", { textContent: entry.name === "" ? "other" : tidy(entry.name) }), shown(entry.size(this.rows))));
      parts.push(heading(this.shapeBox.value), element("ul", {}, ...lines));
    }
    this.legend.replaceChildren(...parts);
  }

  scaleBar(column) {
    const bar = element("i");
    const stops = Array.from({ length: 17 }, (_, i) => shade(this.table.style, Math.round((255 * i) / 16)));
    bar.style.background = `linear-gradient(to top, ${stops.join(", ")})`;
    const ticks = column.ticks.map(([place, label]) => {
      const tick = element("span", { textContent: label });
      tick.style.bottom = `${100 * place}%`;
      return tick;
    });
    return element("div", { className: "scale", role: "img",
      "aria-label": `colour bar from ${column.ticks[0]?.[1]} to ${column.ticks.at(-1)?.[1]}` }, bar, ...ticks);
  }

  toggleGroup(name) {
    const groups = [...this.pressed];
    this.set({ groups: groups.includes(name) ? groups.filter((g) => g !== name) : [...groups, name] });
  }

  // -- the view

  homeNow() {
    if (!this.boundsFrom) return this.bounds;
    const part = this.progress(performance.now());
    return this.bounds.map((to, i) => this.boundsFrom[i] + (to - this.boundsFrom[i]) * part);
  }

  progress(now) {
    const part = clamp((now - this.began) / MOVE, 0, 1);
    return 1 - (1 - part) ** 3;
  }

  view() {
    return this.free ?? this.home();
  }

  // All models, with room for names at the sides.
  home() {
    const [left, low, right, high] = this.homeNow();
    const [width, height] = [this.width, this.height];
    const isNamed = this.rows.length <= SOME;
    const [wide, tall] = [Math.max(width - (isNamed ? 150 : 70), width / 2), Math.max(height - 60, height / 2)];
    const unit = Math.max((right - left) / wide, (high - low) / tall) || 1 / Math.max(width, 1);
    return { x: (left + right) / 2, y: (low + high) / 2, unit };
  }

  toScreen(row, view) {
    return [(this.at[2 * row] - view.x) / view.unit + this.width / 2,
      this.height / 2 - (this.at[2 * row + 1] - view.y) / view.unit];
  }

  toData([x, y], view = this.view()) {
    return [view.x + (x - this.width / 2) * view.unit, view.y - (y - this.height / 2) * view.unit];
  }

  // By a factor, about a place in pixels that stays where it is.
  zoom(factor, place = [this.width / 2, this.height / 2]) {
    const view = this.view();
    const home = this.home().unit;
    const unit = clamp(view.unit / factor, home / 500, home * 4);
    const [x, y] = this.toData(place, view);
    this.free = { unit, x: x - (place[0] - this.width / 2) * unit, y: y + (place[1] - this.height / 2) * unit };
    this.schedule();
  }

  pan(dx, dy) {
    const view = this.view();
    this.free = { ...view, x: view.x - dx * view.unit, y: view.y + dy * view.unit };
    this.schedule();
  }

  reset() {
    this.free = null;
    this.schedule();
  }

  // -- drawing

  // Draw soon, once however often it is asked for.
  schedule() {
    if (this.waiting || this.isGone) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    if (this.isGone || !this.painted) return;
    const box = this.canvas.getBoundingClientRect();
    [this.width, this.height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (this.width < 2 || this.height < 2 || this.seq < 0) return;
    const ratio = (devicePixelRatio * box.width) / this.width; // pages can be zoomed too
    const [wide, tall] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== wide) this.canvas.width = wide;
    if (this.canvas.height !== tall) this.canvas.height = tall;
    const isMoving = this.step(performance.now());
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.scene(new CanvasPen(context), isMoving);
    this.drawLasso(context);
    this.placeTip();
    if (this.drawnSeq !== this.seq) {
      this.drawnSeq = this.seq;
      this.set({ drawn: this.seq });
    }
    if (isMoving) this.schedule();
  }

  // Move the marks on; tells whether they are still on their way.
  step(now) {
    const part = this.progress(now);
    if (part >= 1) this.boundsFrom = null;
    for (const row of this.rows) {
      for (const place of [2 * row, 2 * row + 1]) {
        this.at[place] = part >= 1 ? this.goal[place] : this.from[place] + (this.goal[place] - this.from[place]) * part;
      }
    }
    return part < 1;
  }

  isBright(row) {
    if (!this.passes(row)) return false;
    if (this.matches) return this.matches.has(row);
    return !this.selected.size || this.selected.has(row);
  }

  radius(view) {
    const usual = 0.667 * Math.sqrt(clamp(5000 / Math.max(this.rows.length, 1), 16, 48));
    return usual * Math.sqrt(clamp(this.home().unit / view.unit, 1, 4));
  }

  scene(pen, isMoving) {
    const view = this.view();
    const r = this.radius(view);
    const { fill, mark } = this.painted;
    const { edge, ink } = this.colors;
    const isAnyDim = this.pressed.size || this.matches || this.selected.size;
    const places = new Map();
    const [dim, bright, marked] = [[], [], []];
    for (const row of this.order) {
      const [x, y] = this.toScreen(row, view);
      if (x < -20 || y < -20 || x > this.width + 20 || y > this.height + 20) continue;
      places.set(row, [x, y]);
      const isMarked = this.selected.has(row) && this.passes(row);
      (isMarked ? marked : !isAnyDim || this.isBright(row) ? bright : dim).push(row);
    }
    const isFew = places.size <= FEW; // then each mark counts, and no label may hide one
    if (isFew) this.label(pen, places, [...bright, ...marked], r, isMoving);
    const alpha = this.isDark ? 0.22 : 0.16;
    for (const row of dim) pen.mark(...places.get(row), r, mark[row], { fill: fill[row], edge, alpha });
    for (const row of bright) pen.mark(...places.get(row), r, mark[row], { fill: fill[row], edge });
    const width = marked.length > MANY ? 0.8 : 1.3;
    for (const row of marked) pen.mark(...places.get(row), r * 1.15, mark[row], { fill: fill[row], edge: ink, width });
    for (const row of [this.chosen, this.hover]) {
      if (places.has(row)) pen.mark(...places.get(row), r + 4, "o", { fill: "", edge: ink, width: 1.6 });
    }
    if (!isFew) this.label(pen, places, [...bright, ...marked], r, isMoving);
  }

  // What is to be named, first things first.
  wishes(places, bright) {
    const { entries, group } = this.painted;
    const ink = (row) => this.painted.ink(row) || this.colors.ink;
    const most = this.width < 700 ? 24 : 34; // letters
    const name = (row, more = {}) => ({ row, text: shorten(this.names[row], most), ink: ink(row), ...more });
    const wishes = places.has(this.chosen) ? [name(this.chosen, { bold: true, must: true })] : [];
    const few = [...this.selected].filter((row) => places.has(row) && this.passes(row));
    wishes.push(...few.slice(0, 40).map((row) => name(row, few.length <= 12 ? { must: true } : { most: 9 })));
    const found = [...(this.matches ?? [])].filter((row) => places.has(row));
    wishes.push(...found.slice(0, 40).map((row) => name(row, { most: 9 })));
    if (this.rows.length <= FEW || places.size <= FEW) wishes.push(...bright.map((row) => name(row, { rings: 8 })));
    else {
      const named = places.size > MANY ? entries.filter((entry) => entry.group >= 0).slice(0, 15) : [];
      for (const entry of named) {
        const members = bright.filter((row) => group[row] === entry.group);
        if (members.length < 2 || this.selected.size || this.matches) continue;
        const row = densest(members, (m) => places.get(m), this.width, this.height);
        const text = `${shorten(entry.name, 26)} (${grouped(this.sizes.get(entry.group))})`;
        wishes.push({ row, text, ink: this.painted.ink(row), bold: true, rings: 5, isGroup: true });
      }
      const where = places.size > MANY ? { rings: 1, most: 0 } : { rings: 3, most: 6 };
      if (places.size <= SOME) wishes.push(...bright.map((row) => name(row, where)));
    }
    return wishes;
  }

  label(pen, places, bright, r, isMoving) {
    if (!isMoving) this.labels = this.placeLabels(places, bright, r);
    for (const { row, text, ink, bold, dx, dy, leader } of this.labels ?? []) {
      const at = places.get(row);
      if (!at) continue;
      if (leader) pen.line(at[0], at[1], at[0] + leader[0], at[1] + leader[1], ink);
      pen.text(at[0] + dx, at[1] + dy, text, { ink, bold, halo: this.colors.ground });
    }
  }

  placeLabels(places, bright, r) {
    const room = new Room(this.width, this.height);
    const kept = bright.length ? bright : [...places.keys()]; // what is dim may be covered
    for (const row of kept) room.taken(...places.get(row), r);
    const corner = this.corner;
    room.keep(corner.offsetLeft, corner.offsetTop, corner.offsetWidth, corner.offsetHeight);
    const [seen, placed, height] = [new Set(), [], 15];
    for (const wish of this.wishes(places, bright)) {
      const { row, text, ink, bold = false, must = false, rings = 3, most = Infinity, isGroup = false } = wish;
      if (!isGroup && seen.has(row)) continue;
      const width = this.widthOf(text, bold);
      const [x, y] = places.get(row);
      const around = row === this.chosen ? r + 3 : r;
      let best = room.place(x, y, around, width, height, rings);
      if (best.cost === Infinity && must) {
        const [left, top] = [clamp(x + r + 3, 1, this.width - width - 1), clamp(y - 7, 1, this.height - 16)];
        best = { cost: 0, leader: null, left, top };
      }
      if (best.cost > most || best.cost === Infinity) continue;
      if (!isGroup) seen.add(row);
      room.keep(best.left, best.top, width, height);
      const [dx, dy] = [best.left - x, best.top + height / 2 - y];
      if (best.leader) room.keepLine(x, y, ...best.leader);
      placed.push({ row, text, ink, bold, dx, dy, leader: best.leader && [best.leader[0] - x, best.leader[1] - y] });
    }
    return placed;
  }

  widthOf(text, bold) {
    const key = `${bold}${text}`;
    if (!this.widths.has(key)) {
      const context = this.canvas.getContext("2d");
      context.font = `${bold ? "600 " : ""}12px ${FONT}`;
      this.widths.set(key, context.measureText(isolated(text)).width + 2);
    }
    return this.widths.get(key);
  }

  drawLasso(context) {
    if (this.gesture?.kind !== "lasso" || this.gesture.polygon.length < 2) return;
    const view = this.view();
    context.beginPath();
    this.gesture.polygon.forEach(([x, y], i) => {
      const at = [(x - view.x) / view.unit + this.width / 2, this.height / 2 - (y - view.y) / view.unit];
      if (i) context.lineTo(...at);
      else context.moveTo(...at);
    });
    context.closePath();
    context.fillStyle = "rgb(70 130 200 / 15%)";
    context.fill();
    context.setLineDash([5, 4]);
    context.strokeStyle = this.colors.ink;
    context.lineWidth = 1.2;
    context.stroke();
    context.setLineDash([]);
  }

  // -- what is told

  facts(row) {
    return Object.values(this.table.columns).filter((column) => column.values[row] !== null)
      .map((column) => [tidy(column.title), human(column.values[row])]);
  }

  placeTip() {
    const row = this.tip;
    this.tipBox.hidden = row < 0;
    if (row < 0) return;
    if (this.tipRow !== row) {
      this.tipRow = row;
      const lines = this.facts(row).flatMap(([what, value]) => [element("dt", { dir: "auto", textContent: what }),
        element("dd", { dir: "auto", textContent: shorten(value, 120) })]);
      this.tipBox.replaceChildren(element("b", {}, element("bdi", { textContent: this.names[row] })),
        element("dl", {}, ...lines), ...this.neighborLines(row));
    }
    const [x, y] = this.toScreen(row, this.view());
    const [wide, tall] = [this.tipBox.offsetWidth, this.tipBox.offsetHeight];
    const left = x + 16 + wide < this.width ? x + 16 : x - 16 - wide;
    this.tipBox.style.left = `${clamp(left, 2, Math.max(2, this.width - wide - 2))}px`;
    this.tipBox.style.top = `${clamp(y + 12, 2, Math.max(2, this.height - tall - 2))}px`;
  }

  neighborLines(row) {
    const near = this.table.neighbors;
    if (!near) return [];
    const lines = near.rows[row].flatMap((other, i) => [
      element("dt", {}, element("bdi", { textContent: this.names[other] })),
      element("dd", { textContent: human(near.kl[row][i]) })]);
    return [element("div", { textContent: "Nearest, KL in nats per text" }), element("dl", {}, ...lines)];
  }

  tell() {
    if (!this.selected) return;
    const [shown, all] = [grouped(this.rows.length), grouped(this.n)];
    const parts = [this.rows.length < this.n ? `${shown} of ${all} models shown` : `${all} models`];
    if (this.matches) parts.push(`${grouped(this.matches.size)} found: Enter selects them`);
    if (this.pressed.size) parts.push(`${grouped(this.rows.filter(this.passes).length)} in the chosen groups`);
    const absent = [...this.selected].filter((row) => !this.isShown[row]).length;
    const notShown = absent ? `, ${grouped(absent)} of them not shown` : "";
    if (this.selected.size) parts.push(`${grouped(this.selected.size)} selected${notShown}`);
    if (this.chosen >= 0) {
      const fact = ([what, value]) => `${what} ${isolated(shorten(value, 40))}`;
      const facts = this.facts(this.chosen).slice(0, 3).map(fact);
      parts.push(`at ${isolated(this.names[this.chosen])}${facts.length ? `: ${facts.join(", ")}` : ""}`);
    }
    const told = parts.join(" · ");
    if (this.status.textContent !== told) this.status.textContent = told;
    const keys = "Arrow keys go from model to model, question mark is help.";
    this.canvas.setAttribute("aria-label", `Map of ${shown} models. ${keys}`);
  }

  say(sentence) {
    this.status.textContent = sentence;
  }

  // -- mouse, pen, fingers

  listen() {
    const { canvas, box, search } = this;
    const on = (target, heard) => {
      for (const [name, see] of Object.entries(heard)) target.addEventListener(name, see, { passive: false });
    };
    on(canvas, {
      pointerdown: (event) => this.press(event),
      pointermove: (event) => this.move(event),
      pointerup: (event) => this.release(event),
      pointercancel: (event) => this.cancel(event),
      pointerleave: () => this.point(-1),
      wheel: (event) => this.wheel(event),
      keydown: (event) => this.key(event),
      keyup: (event) => { if (event.key === " ") this.isSpaceDown = false; },
      blur: () => { this.isSpaceDown = false; this.point(-1); },
      contextmenu: (event) => { event.preventDefault(); event.stopPropagation(); },
    });
    // JupyterLab hears keys before the page does. It keeps its own with Ctrl or Cmd; plain ones are for the map.
    const heardOutside = (event) => event.ctrlKey || event.metaKey;
    const share = (event) => box.toggleAttribute("data-lm-suppress-shortcuts", !heardOutside(event));
    on(box, { keydown: (event) => {
      if (event.key === "Escape") {
        event.preventDefault();
        if (this.help.hidden) this.clear();
        else this.showHelp(false);
      }
      if (!heardOutside(event)) event.stopPropagation();
    } });
    on(box, { keydown: share, keyup: share, focusin: share });
    on(search, {
      input: () => this.set({ query: search.value }),
      keydown: (event) => {
        if (event.key === "Enter" && this.matches) this.select([...this.matches], event.shiftKey);
      },
    });
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  nearest([x, y], within) {
    const view = this.view();
    let [best, found] = [within ** 2, -1];
    for (const row of this.order) {
      if (!this.passes(row)) continue;
      const [px, py] = this.toScreen(row, view);
      const away = (px - x) ** 2 + (py - y) ** 2;
      if (away <= best) [best, found] = [away, row];
    }
    return found;
  }

  point(row) {
    if (row === this.hover && row === this.tip) return;
    [this.hover, this.tip] = [row, row];
    this.schedule();
  }

  press(event) {
    const place = this.placeOf(event);
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, place);
    const isPan = event.button > 0 || this.isSpaceDown;
    if (this.pointers.size === 2) this.gesture = { kind: "pinch" };
    else if (this.pointers.size > 2) this.gesture = null;
    else if (isPan) this.gesture = { kind: "pan" };
    else {
      const polygon = [this.toData(place)];
      this.gesture = { kind: "lasso", begin: place, last: place, polygon, adds: event.shiftKey, isDrag: false };
    }
    this.canvas.classList.toggle("grab", this.gesture?.kind === "pan");
    event.preventDefault();
  }

  move(event) {
    const place = this.placeOf(event);
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.gesture) {
      if (event.pointerType !== "touch") this.point(this.nearest(place, NEAR));
      return;
    }
    if (this.gesture.kind === "pan") this.pan(place[0] - before[0], place[1] - before[1]);
    if (this.gesture.kind === "pinch") this.pinch(event.pointerId, before, place);
    this.pointers.set(event.pointerId, place);
    if (this.gesture.kind !== "lasso") return;
    const { gesture } = this;
    if (Math.hypot(place[0] - gesture.begin[0], place[1] - gesture.begin[1]) > 5) gesture.isDrag = true;
    if (Math.hypot(place[0] - gesture.last[0], place[1] - gesture.last[1]) < 3) return;
    gesture.last = place;
    gesture.polygon.push(this.toData(place));
    if (gesture.isDrag) this.point(-1);
    this.schedule();
  }

  pinch(id, before, place) {
    const [, other] = [...this.pointers].find(([key]) => key !== id);
    const apart = (a) => Math.max(Math.hypot(a[0] - other[0], a[1] - other[1]), 1);
    const middle = (a) => [(a[0] + other[0]) / 2, (a[1] + other[1]) / 2];
    const [from, to] = [middle(before), middle(place)];
    this.pan(to[0] - from[0], to[1] - from[1]);
    this.zoom(apart(place) / apart(before), to);
  }

  release(event) {
    const { gesture } = this;
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("grab");
    if (gesture?.kind !== "lasso") {
      if (!this.pointers.size) this.gesture = null;
      return;
    }
    this.gesture = null;
    const adds = gesture.adds || event.shiftKey;
    if (gesture.isDrag) {
      const { polygon } = gesture;
      this.model.set("lasso", polygon);
      const within = (row) => isInside(this.goal[2 * row], this.goal[2 * row + 1], polygon);
      this.select(this.rows.filter((row) => this.passes(row) && within(row)), adds);
    } else this.click(this.nearest(this.placeOf(event), event.pointerType === "touch" ? 2 * NEAR : NEAR), adds);
    this.schedule();
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    this.gesture = null;
    this.schedule();
  }

  click(row, adds) {
    if (row < 0) {
      this.point(-1);
      return;
    }
    this.choose(row);
    this.selectOne(row, adds);
  }

  // Only a map that was clicked, so that a page can be scrolled across it.
  wheel(event) {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    this.zoom(Math.exp(-clamp(pixels, -300, 300) * (event.ctrlKey ? 0.008 : 0.002)), this.placeOf(event));
  }

  // -- selection

  select(rows, adds) {
    const kept = adds || this.adding ? [...this.selected] : [];
    const chosen = new Set([...kept, ...rows]);
    this.set({ selected: this.idsOf(chosen) });
  }

  // Alone, or in and out.
  selectOne(row, adds) {
    const isIn = this.selected.has(row);
    if (!adds && !this.adding) this.select([row], false);
    else if (isIn) this.set({ selected: this.idsOf([...this.selected].filter((r) => r !== row)) });
    else this.select([row], true);
  }

  idsOf(rows) {
    return [...rows].sort((a, b) => a - b).map((row) => this.table.ids[row]);
  }

  choose(row) {
    [this.hover, this.tip] = [-1, row];
    this.set({ chosen: row < 0 ? "" : this.table.ids[row] });
  }

  clear() {
    [this.hover, this.tip] = [-1, -1];
    this.set({ query: "", groups: [], selected: [], chosen: "" });
  }

  setAdding(adding) {
    this.adding = adding;
    this.addButton.setAttribute("aria-pressed", String(adding));
  }

  // -- keys, on the canvas

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const does = {
      "+": () => this.zoom(1.4), "=": () => this.zoom(1.4), "-": () => this.zoom(1 / 1.4),
      "−": () => this.zoom(1 / 1.4), "0": () => this.reset(), "Home": () => this.reset(),
      "?": () => this.showHelp(true), "/": () => this.search.focus(),
      "PageDown": () => this.walk(1), "PageUp": () => this.walk(-1), " ": () => { this.isSpaceDown = true; },
      "Enter": () => { if (this.isShown[this.chosen]) this.selectOne(this.chosen, event.shiftKey); },
      "a": () => this.selectInView(event.shiftKey), "A": () => this.selectInView(event.shiftKey),
    }[event.key];
    const arrow = arrows[event.key];
    if (!does && !arrow) return;
    event.preventDefault();
    if (does) does();
    else if (event.shiftKey) this.pan(-60 * arrow[0], -60 * arrow[1]);
    else this.go(arrow);
  }

  // To the next model that way, within 45 degrees.
  go([ux, uy]) {
    const view = this.view();
    const from = this.chosen >= 0 && this.isShown[this.chosen] ? this.toScreen(this.chosen, view) : null;
    if (!from) {
      this.goTo(this.nearest([this.width / 2, this.height / 2], Infinity));
      return;
    }
    let [best, found] = [Infinity, -1];
    for (const row of this.rows) {
      if (row === this.chosen || !this.passes(row)) continue;
      const [x, y] = this.toScreen(row, view);
      const [dx, dy] = [x - from[0], y - from[1]];
      const [along, across] = [dx * ux + dy * uy, Math.abs(dx * uy) + Math.abs(dy * ux)];
      const away = Math.hypot(along, across);
      if (along > 0 && across <= along && away < best) [best, found] = [away, row];
    }
    this.goTo(found);
  }

  walk(step) {
    const rows = this.rows.filter((row) => this.passes(row)).sort((a, b) => a - b);
    const here = rows.indexOf(this.chosen);
    const next = here < 0 && step < 0 ? rows.length - 1 : (here + step + rows.length) % rows.length;
    if (rows.length) this.goTo(rows[next]);
  }

  goTo(row) {
    if (row < 0) return;
    this.choose(row);
    const [x, y] = this.toScreen(row, this.view());
    const [dx, dy] = [clamp(x, 20, this.width - 20) - x, clamp(y, 20, this.height - 20) - y];
    if (dx || dy) this.pan(dx, dy);
  }

  selectInView(adds) {
    const view = this.view();
    const inView = this.rows.filter((row) => {
      const [x, y] = this.toScreen(row, view);
      return this.passes(row) && x >= 0 && y >= 0 && x <= this.width && y <= this.height;
    });
    this.select(inView, adds);
  }

  showHelp(isShown) {
    this.help.hidden = !isShown;
    this.helpButton.setAttribute("aria-expanded", String(isShown));
    if (isShown) this.help.focus({ preventScroll: true });
    else this.canvas.focus({ preventScroll: true });
  }

  // -- taking it away

  taken() {
    return this.selected.size ? [...this.selected].sort((a, b) => a - b) : [...this.rows].sort((a, b) => a - b);
  }

  async copyIds() {
    const ids = this.idsOf(this.selected);
    if (!ids.length) {
      this.say("No model is selected: lasso or click some first");
      return;
    }
    const text = ids.join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = element("textarea", { value: text });
      this.box.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    this.say(`${grouped(ids.length)} ids copied, one a line`);
  }

  saveCsv() {
    const columns = Object.entries(this.table.columns);
    const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const lines = [["id", "model", "x", "y", ...columns.map(([name]) => name)]];
    for (const row of this.taken()) {
      const place = this.isShown[row] ? [this.goal[2 * row], this.goal[2 * row + 1]] : ["", ""];
      const values = columns.map(([, column]) => column.values[row] ?? "");
      lines.push([this.table.ids[row], this.table.names[row], ...place, ...values]);
    }
    const text = lines.map((line) => line.map((value) => cell(String(value))).join(",")).join("\r\n");
    this.save("models.csv", new Blob([`${text}\r\n`], { type: "text/csv;charset=utf-8" }));
  }

  saveSvg() {
    const [width, height] = this.sheetSize();
    const pen = new SvgPen(width, height);
    this.sheet(pen, width, height);
    this.save("map.svg", new Blob([new XMLSerializer().serializeToString(pen.root)], { type: "image/svg+xml" }));
  }

  savePng() {
    const [width, height] = this.sheetSize();
    const sheet = element("canvas", { width: 2 * width, height: 2 * height });
    const context = sheet.getContext("2d");
    context.scale(2, 2);
    this.sheet(new CanvasPen(context), width, height);
    sheet.toBlob((blob) => this.save("map.png", blob));
  }

  captionLines() {
    const [lines, most] = [[""], Math.floor((this.width + 180) / 6.2)];
    for (const word of tidy(this.caption.textContent).split(" ")) {
      if (lines.at(-1).length + word.length + 1 > most) lines.push(word);
      else lines[lines.length - 1] += lines.at(-1) ? ` ${word}` : word;
    }
    return lines.filter((line) => line);
  }

  sheetSize() {
    const legend = this.painted.entries.length + this.painted.shapes.length + 4;
    const tall = Math.max(this.height, 18 * legend) + (this.title.textContent ? 24 : 0);
    return [this.width + 200, tall + 16 * this.captionLines().length + 12];
  }

  // What is on the screen, with legend and caption.
  sheet(pen, width, height) {
    const { ink, ground } = this.colors;
    pen.box(0, 0, width, height, ground);
    this.scene(pen, false);
    this.sheetLegend(pen, this.width + 12);
    this.captionLines().forEach((line, i, all) => {
      pen.text(8, height - 16 * (all.length - i), line, { ink, size: 11 });
    });
    if (this.title.textContent) pen.text(8, 12, tidy(this.title.textContent), { ink, bold: true, halo: ground });
  }

  sheetLegend(pen, x) {
    const { ink } = this.colors;
    const { columns, style } = this.table;
    let y = 16;
    const heading = (name) => {
      pen.text(x, y, shorten(columns[name].title, 26), { ink, bold: true });
      y += 20;
    };
    const entry = (fill, mark, name) => {
      pen.mark(x + 6, y, 4.5, mark, { fill, edge: fill });
      pen.text(x + 18, y, name === "" ? "other" : shorten(name, 26), { ink });
      y += 18;
    };
    if (this.painted.kind !== "none") heading(this.colorBox.value);
    const isThere = (line) => this.painted.kind !== "group" || this.sizes.has(line.group);
    for (const { fill, mark, name } of this.painted.entries.filter(isThere)) entry(fill, mark, name);
    if (["number", "date"].includes(this.painted.kind)) {
      for (let step = 0; step < 64; step++) pen.box(x, y + 128 - 2 * step, 12, 2.5, shade(style, 4 * step));
      const { ticks } = columns[this.colorBox.value];
      for (const [place, label] of ticks) pen.text(x + 18, y + 130 - 130 * place, label, { ink });
      y += 160;
    }
    if (this.painted.shapes.length) heading(this.shapeBox.value);
    for (const { mark, name } of this.painted.shapes) entry(ink, mark, name);
  }

  save(name, blob) {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    this.say(`${name} saved`);
  }
}

export default { render: ({ model, el }) => mountMap(el, model) };
