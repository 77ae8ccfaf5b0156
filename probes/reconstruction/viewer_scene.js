"use strict";
// Points and cameras of one reconstruction. Vectors are arrays; matrices are column-major, as WebGL takes them.
const scene = JSON.parse(document.getElementById("scene").textContent);
const canvas = document.getElementById("view");
const at = (id) => document.getElementById(id);

// ---- vectors
const add = (a, b, k = 1) => [a[0] + k * b[0], a[1] + k * b[1], a[2] + k * b[2]];
const sub = (a, b) => add(a, b, -1);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const n = Math.hypot(...a) || 1; return [a[0] / n, a[1] / n, a[2] / n]; };
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

// ---- the scene's data
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const points = scene.points;
const xyz = new Uint16Array(bytes(points.xyz).buffer);
const place = (i) => [0, 1, 2].map((k) => points.low[k] + xyz[3 * i + k] / 65535 * points.size[k]);
const cameras = scene.cameras.map((camera) => {
  const m = camera.world_from_cam, column = (k) => [m[0][k], m[1][k], m[2][k]];
  return { ...camera, right: column(0), down: column(1), forward: column(2), eye: column(3) };
});

// Up is where the images' tops point; the other two axes span the ground.
const up = scene.up;
const ahead = (() => {
  const mean = cameras.reduce((sum, camera) => add(sum, camera.forward), [0, 0, 0]);
  const flat = add(mean, up, -dot(mean, up));
  return unit(Math.hypot(...flat) > 1e-3 ? flat : cross(up, Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 0, 1]));
})();
const side = cross(ahead, up);

const sample = [];
for (let i = 0, step = Math.max(1, points.count >> 12); i < points.count; i += step) sample.push(place(i));
if (!sample.length) sample.push(...cameras.map((camera) => add(camera.eye, camera.forward)));
const middle = [0, 1, 2].map((k) => median(sample.map((p) => p[k])));
const radius = Math.max(1e-6, 1.6 * median(sample.map((p) => Math.hypot(...sub(p, middle)))));
const cameraSize = (() => {
  const gaps = cameras.map((a) => Math.min(...cameras.filter((b) => b !== a).map((b) => Math.hypot(...sub(a.eye, b.eye)))));
  const gap = cameras.length > 1 ? median(gaps) : radius;
  return Math.min(0.14 * radius, Math.max(0.5 * gap, 0.04 * radius));
})();

// ---- where we look from: round a target, at angles to the ground
const narrow = Math.min(1, innerWidth / innerHeight);
const start = { target: middle, distance: 2.3 * radius / narrow, yaw: 0.35, pitch: 0.38 };
let look = { ...start }, colour = 0, showCameras = true, flight = null, current = -1;
const FOV = 0.85;

const direction = (v) => add(add(
  add([0, 0, 0], ahead, -Math.cos(v.pitch) * Math.cos(v.yaw)), side, Math.cos(v.pitch) * Math.sin(v.yaw)), up, Math.sin(v.pitch));
const eyeOf = (v) => add(v.target, direction(v), v.distance);

function viewFrame() {
  const back = direction(look), right = unit(cross(up, back)), top = cross(back, right);
  return { back, right, top, eye: eyeOf(look) };
}

function clipFromWorld({ back, right, top, eye }) {
  const near = look.distance * 0.01, far = look.distance + 40 * radius;
  const f = 1 / Math.tan(FOV / 2), aspect = canvas.width / canvas.height;
  const a = (far + near) / (near - far), b = 2 * far * near / (near - far);
  const rows = [[f / aspect, right], [f, top], [a, back]].map(([k, axis]) => [...axis.map((x) => k * x), -k * dot(axis, eye)]);
  rows[2][3] += b;
  const w = [...back.map((x) => -x), dot(back, eye)];
  return [0, 1, 2, 3].flatMap((k) => [rows[0][k], rows[1][k], rows[2][k], w[k]]);
}
