// What moves the view: mouse, fingers, keys, buttons.
const steep = (pitch) => Math.max(-1.55, Math.min(1.55, pitch));
function turn(yaw, pitch) { look = { ...look, yaw: look.yaw + yaw, pitch: steep(look.pitch + pitch) }; flight = null; redraw(); }
function zoom(factor) { look = { ...look, distance: Math.max(1e-3 * radius, Math.min(60 * radius, look.distance * factor)) }; flight = null; redraw(); }
function pan(dx, dy) {
  const { right, top } = viewFrame(), k = 2 * Math.tan(FOV / 2) * look.distance / canvas.clientHeight;
  look = { ...look, target: add(add(look.target, right, -dx * k), top, dy * k) };
  flight = null;
  redraw();
}
function flyTo(goal) { flight = { from: look, to: goal, since: null }; redraw(); }
function fly(now) {
  flight.since ??= now;
  const t = Math.min(1, (now - flight.since) / 550), s = t * t * (3 - 2 * t), { from, to } = flight;
  const turned = Math.atan2(Math.sin(to.yaw - from.yaw), Math.cos(to.yaw - from.yaw));
  look = {
    target: add(from.target, sub(to.target, from.target), s),
    distance: from.distance * (to.distance / from.distance) ** s,
    yaw: from.yaw + s * turned,
    pitch: from.pitch + s * (to.pitch - from.pitch),
  };
  if (t < 1) redraw(); else flight = null;
}
function behind(i) {
  current = (i + cameras.length) % cameras.length;
  const camera = cameras[current], back = unit(add([0, 0, 0], camera.forward, -1));
  const distance = Math.max(0.2 * radius, dot(sub(middle, camera.eye), camera.forward));
  flyTo({
    target: add(camera.eye, camera.forward, distance),
    distance: distance + 2.2 * cameraSize,
    yaw: Math.atan2(dot(back, side), -dot(back, ahead)),
    pitch: steep(Math.asin(Math.max(-1, Math.min(1, dot(back, up))))),
  });
}
function pick(x, y) {
  const clip = clipFromWorld(viewFrame()), box = canvas.getBoundingClientRect();
  const wantX = 2 * (x - box.left) / box.width - 1, wantY = 1 - 2 * (y - box.top) / box.height;
  let best = null, least = 0.03;
  for (let i = 0; i < points.count; i++) {
    const p = place(i), row = (k) => clip[k] * p[0] + clip[4 + k] * p[1] + clip[8 + k] * p[2] + clip[12 + k];
    const w = row(3);
    if (w <= 0) continue;
    // Of points about as near to the cursor, the one in front.
    const off = Math.hypot(row(0) / w - wantX, row(1) / w - wantY);
    const cost = off + 0.01 * w / look.distance;
    if (off < 0.03 && cost < least) { least = cost; best = p; }
  }
  if (best) flyTo({ ...look, target: best });
}

// ---- mouse, touch, keys
const fingers = new Map();
canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); canvas.focus(); });
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  if (fingers.size === 2) {
    const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    const gap = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
    pan(dx / 2, dy / 2);
    zoom(gap(before) / gap(event));
  } else if (event.shiftKey || event.buttons & 6) pan(dx, dy);
  else turn(-0.006 * dx, 0.006 * dy);
  fingers.set(event.pointerId, event);
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(0.0012 * event.deltaY * (event.deltaMode ? 30 : 1))); }, { passive: false });
canvas.addEventListener("dblclick", (event) => pick(event.clientX, event.clientY));

function paint(mode) {
  colour = mode;
  for (const button of at("colours").children) button.setAttribute("aria-pressed", String(Number(button.dataset.colour) === mode));
  redraw();
}
function toggleCameras() { showCameras = !showCameras; at("cameras").setAttribute("aria-pressed", String(showCameras)); redraw(); }
function tell() {
  at("size-told").textContent = `× ${(2 ** Number(at("size").value)).toFixed(2)}`;
  at("cut-told").textContent = `${at("cut").value} %`;
  redraw();
}
function resize(step) { at("size").value = Number(at("size").value) + step; tell(); }
function reset() { current = -1; flyTo(start); }

const keys = {
  1: () => paint(0), 2: () => paint(1), 3: () => paint(2),
  "[": () => resize(-0.3), "]": () => resize(0.3), c: toggleCameras, r: reset,
  ",": () => behind(current - (current < 0 ? 0 : 1)), ".": () => behind(current + 1),
  ArrowLeft: () => turn(0.08, 0), ArrowRight: () => turn(-0.08, 0), ArrowUp: () => turn(0, 0.08), ArrowDown: () => turn(0, -0.08),
  "+": () => zoom(0.88), "=": () => zoom(0.88), "-": () => zoom(1.14),
};
addEventListener("keydown", (event) => {
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const slides = event.target.type === "range" && event.key.startsWith("Arrow");
  if (!act || slides || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
for (const button of at("colours").children) button.addEventListener("click", () => paint(Number(button.dataset.colour)));
at("cameras").addEventListener("click", toggleCameras);
at("reset").addEventListener("click", reset);
for (const id of ["size", "cut"]) at(id).addEventListener("input", tell);
addEventListener("resize", redraw);

cameras.forEach((camera, i) => {
  if (!camera.picture) return;
  const image = new Image();
  image.onload = () => { planes[i].texture = texture(image); redraw(); };
  image.src = camera.picture;
  image.alt = camera.name;
  const button = document.createElement("button");
  button.title = camera.name;
  button.append(image);
  button.addEventListener("click", () => behind(i));
  at("views").append(button);
});
tell();
