// What is seen: points, and a wire frame with a picture for every camera.
const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
if (!gl) { at("fault").style.display = "block"; throw new Error("no WebGL 2"); }

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, "#version 300 es\nprecision highp float;\n" + text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  return { made, uniform: (name) => gl.getUniformLocation(made, name) };
}

function attribute(target, name, data, size, type, normalized) {
  const location = gl.getAttribLocation(target.made, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(location);
  gl.vertexAttribPointer(location, size, type, normalized, 0, 0);
}

const vertexArray = (fill) => { const made = gl.createVertexArray(); gl.bindVertexArray(made); fill(); return made; };

const cloud = program(
  `in vec3 xyz; in vec3 rgb; in float sure; in float far;
   uniform mat4 clip; uniform vec3 low; uniform vec3 size; uniform float scale; uniform float cut; uniform int colour;
   out vec3 shade;
   vec3 turbo(float x) {  // a polynomial through the published map
     vec4 a = vec4(1, x, x*x, x*x*x); vec2 b = a.zw * a.z;
     return clamp(vec3(
       dot(a, vec4(.13572138, 4.6153926, -42.66032258, 132.13108234)) + dot(b, vec2(-152.94239396, 59.28637943)),
       dot(a, vec4(.09140261, 2.19418839, 4.84296658, -14.18503333)) + dot(b, vec2(4.27729857, 2.82956604)),
       dot(a, vec4(.1066733, 12.64194608, -60.58204836, 110.36276771)) + dot(b, vec2(-89.90310912, 27.34824973))), 0., 1.);
   }
   vec3 heat(float x) { return mix(mix(vec3(.27,.0,.33), vec3(.13,.57,.55), min(1., 2.*x)), vec3(.99,.91,.14), max(0., 2.*x - 1.)); }
   void main() {
     gl_Position = clip * vec4(low + xyz * size, 1);
     gl_PointSize = clamp(scale / gl_Position.w, 1.2, 48.);
     if (sure < cut) gl_Position = vec4(2, 2, 2, 1);
     shade = colour == 0 ? rgb : colour == 1 ? heat(sure) : turbo(.95 - .9 * far);
   }`,
  `in vec3 shade; out vec4 pixel;
   void main() {
     vec2 d = gl_PointCoord * 2. - 1.;
     if (dot(d, d) > 1.) discard;
     pixel = vec4(shade, 1);
   }`);
const cloudArray = vertexArray(() => {
  attribute(cloud, "xyz", xyz, 3, gl.UNSIGNED_SHORT, true);
  attribute(cloud, "rgb", bytes(points.rgb), 3, gl.UNSIGNED_BYTE, true);
  attribute(cloud, "sure", bytes(points.confidence), 1, gl.UNSIGNED_BYTE, true);
  attribute(cloud, "far", bytes(points.depth), 1, gl.UNSIGNED_BYTE, true);
});

const corners = cameras.map((camera) => {
  const widest = Math.max(0.6, ...camera.corners_cam.flatMap((c) => [Math.abs(c[0]), Math.abs(c[1])]));
  const k = 0.6 * cameraSize / widest;
  return camera.corners_cam.map((c) => add(add(add(camera.eye, camera.right, k * c[0]), camera.down, k * c[1]), camera.forward, k));
});
const hue = (i) => { const t = cameras.length > 1 ? i / (cameras.length - 1) : 0; return [0.34 + 0.62 * t, 0.71 - 0.05 * t, 0.95 - 0.75 * t]; };

const wires = program(
  `in vec3 xyz; in vec3 rgb; uniform mat4 clip; out vec3 shade;
   void main() { gl_Position = clip * vec4(xyz, 1); shade = rgb; }`,
  `in vec3 shade; out vec4 pixel; void main() { pixel = vec4(shade, 1); }`);
const segments = cameras.flatMap((camera, i) => {
  const [a, b, c, d] = corners[i];
  // The tick over the upper edge tells which way is up.
  const tick = add(add(a, sub(b, a), 0.5), camera.down, -0.18 * Math.hypot(...sub(d, a)));
  const lines = [[camera.eye, a], [camera.eye, b], [camera.eye, c], [camera.eye, d], [a, b], [b, c], [c, d], [d, a], [a, tick], [tick, b]];
  return lines.flat().map((place) => ({ place, shade: hue(i) }));
});
const wiresArray = vertexArray(() => {
  attribute(wires, "xyz", new Float32Array(segments.flatMap((s) => s.place)), 3, gl.FLOAT, false);
  attribute(wires, "rgb", new Float32Array(segments.flatMap((s) => s.shade)), 3, gl.FLOAT, false);
});

const pictures = program(
  `in vec3 xyz; in vec2 uv; uniform mat4 clip; out vec2 where;
   void main() { gl_Position = clip * vec4(xyz, 1); where = uv; }`,
  `in vec2 where; uniform sampler2D picture; out vec4 pixel; void main() { pixel = texture(picture, where); }`);
const planes = cameras.map((camera, i) => ({
  texture: null,
  array: vertexArray(() => {
    const [a, b, c, d] = corners[i];
    attribute(pictures, "xyz", new Float32Array([a, b, d, c].flat()), 3, gl.FLOAT, false);
    attribute(pictures, "uv", new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), 2, gl.FLOAT, false);
  }),
}));

function texture(image) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return made;
}

// ---- drawing, only when something changed
let due = false;
const redraw = () => { if (!due) { due = true; requestAnimationFrame(draw); } };

function draw(now) {
  due = false;
  if (flight) fly(now);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  gl.viewport(0, 0, width, height);
  gl.clearColor(0.063, 0.086, 0.11, 1);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST);
  const clip = clipFromWorld(viewFrame());
  drawCloud(clip, height);
  if (showCameras) drawCameras(clip);
}

function drawCloud(clip, height) {
  gl.useProgram(cloud.made);
  gl.bindVertexArray(cloudArray);
  gl.uniformMatrix4fv(cloud.uniform("clip"), false, clip);
  gl.uniform3fv(cloud.uniform("low"), points.low);
  gl.uniform3fv(cloud.uniform("size"), points.size);
  // As large as points that would cover the scene's outline once.
  const spacing = 2.2 * radius / Math.sqrt(Math.max(points.count, 1)) * 2 ** Number(at("size").value);
  gl.uniform1f(cloud.uniform("scale"), spacing * height / (2 * Math.tan(FOV / 2)) * 1.5);
  gl.uniform1f(cloud.uniform("cut"), Number(at("cut").value) / 100);
  gl.uniform1i(cloud.uniform("colour"), colour);
  gl.drawArrays(gl.POINTS, 0, points.count);
}

function drawCameras(clip) {
  gl.useProgram(wires.made);
  gl.bindVertexArray(wiresArray);
  gl.uniformMatrix4fv(wires.uniform("clip"), false, clip);
  gl.drawArrays(gl.LINES, 0, segments.length);
  gl.useProgram(pictures.made);
  gl.uniformMatrix4fv(pictures.uniform("clip"), false, clip);
  for (const plane of planes) {
    if (!plane.texture) continue;
    gl.bindTexture(gl.TEXTURE_2D, plane.texture);
    gl.bindVertexArray(plane.array);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
}
