// A lidar scene in 3D: points and cuboids by WebGL2. Drag or use the arrow keys to turn it, + and - to come closer.
// The drawing from above and the table have everything that is shown here.
"use strict";

const STEP = Math.PI / 36;
const SIZE = 4; // numbers of a point: x, y, z, and the place of its color in the palette, -1 for one by its height
const SHADER = `#version 300 es
uniform mat4 view; uniform float size; in vec4 place; out float height; flat out int chosen;
void main() { gl_Position = view * vec4(place.xyz, 1.0); gl_PointSize = size; height = place.z; chosen = int(place.w); }`;
const COLOR = `#version 300 es
precision mediump float; uniform vec3 palette[16]; in float height; flat in int chosen; out vec4 shown;
void main() {
  float share = clamp((height + 3.0) / 8.0, 0.0, 1.0);
  shown = vec4(chosen < 0 ? vec3(0.3 + 0.7 * share, 0.65, 1.0 - 0.8 * share) : palette[chosen], 1.0);
}`;
const EDGES = [0, 1, 1, 2, 2, 3, 3, 0, 4, 5, 5, 6, 6, 7, 7, 4, 0, 4, 1, 5, 2, 6, 3, 7];

function compile(gl) {
  const program = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, SHADER], [gl.FRAGMENT_SHADER, COLOR]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return program;
}

function buffer(gl, program, values) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  const place = gl.getAttribLocation(program, "place");
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, SIZE, gl.FLOAT, false, 0, 0);
  return { array, count: values.length / SIZE };
}

// The corners of a cuboid: turned by its yaw about its centre, then its edges as pairs of points.
function edges({ position, dimensions, yaw, color }) {
  const [cosine, sine] = [Math.cos(yaw), Math.sin(yaw)];
  const corners = [-1, 1].flatMap((up) => [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([right, ahead]) => {
    const [x, y] = [right * dimensions.x / 2, ahead * dimensions.y / 2];
    return [position.x + x * cosine - y * sine, position.y + x * sine + y * cosine, position.z + up * dimensions.z / 2,
      color];
  }));
  return EDGES.flatMap((corner) => corners[corner]);
}

// Column-major: look at `at` from a distance, turned about the vertical axis and tilted.
function viewMatrix({ turn, tilt, distance, at }, ratio) {
  const [ct, st, cp, sp] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
  const right = [ct, st, 0], up = [-st * sp, ct * sp, cp], back = [st * cp, -ct * cp, sp];
  const dot = (a) => a[0] * at[0] + a[1] * at[1] + a[2] * at[2];
  const focus = 1.7, far = 2000, near = 0.1;
  const depth = -(far + near) / (far - near), shift = -2 * far * near / (far - near);
  const rows = [[right, -dot(right)], [up, -dot(up)], [back, -dot(back) - distance]];
  const eye = (column, row) => (column < 3 ? rows[row][0][column] : rows[row][1]);
  const columns = [];
  for (let column = 0; column < 4; column++) {
    columns.push(focus / ratio * eye(column, 0), focus * eye(column, 1),
      depth * eye(column, 2) + (column === 3 ? shift : 0), -eye(column, 2));
  }
  return new Float32Array(columns);
}

function middle(values) {
  const sums = [0, 0, 0, 0];
  values.forEach((value, number) => { sums[number % SIZE] += value; });
  return sums.slice(0, 3).map((sum) => sum / Math.max(1, values.length / SIZE));
}

// How far the farthest of the points is from a place, on the ground.
function reach(values, [x, y]) {
  let most = 0;
  for (let at = 0; at < values.length; at += SIZE) most = Math.max(most, Math.hypot(values[at] - x, values[at + 1] - y));
  return most;
}

async function points(address) {
  const answer = address ? await fetch(address) : null;
  if (answer?.ok) return new Float32Array(await answer.arrayBuffer());
  await answer?.body?.cancel();
  return new Float32Array();
}

async function start(canvas) {
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
  const state = document.querySelector("[data-points-state]");
  if (!gl) {
    state.textContent = "This browser has no WebGL2. The scene is drawn from above.";
    canvas.hidden = true;
    return;
  }
  const cuboids = JSON.parse(canvas.dataset.cuboids);
  const cloud = await points(canvas.dataset.points);
  const lines = new Float32Array(cuboids.flatMap(edges));
  const program = compile(gl);
  gl.useProgram(program);
  const [drawnPoints, drawnLines] = [buffer(gl, program, cloud), buffer(gl, program, lines)];
  const uniform = (name) => gl.getUniformLocation(program, name);
  const what = lines.length ? lines : cloud;
  const at = middle(what);
  const eye = { turn: 0, tilt: 0.6, distance: Math.min(10 + reach(what, at), 60), at };
  const palette = canvas.dataset.palette.split(" ").flatMap((color) => [1, 3, 5].map((digit) => parseInt(color.slice(digit, digit + 2), 16) / 255));

  function draw() {
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.07, 0.08, 0.1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.uniformMatrix4fv(uniform("view"), false, viewMatrix(eye, canvas.width / Math.max(1, canvas.height)));
    gl.uniform1f(uniform("size"), 2 * scale);
    gl.uniform3fv(uniform("palette"), palette);
    for (const [shape, kind] of [[drawnPoints, gl.POINTS], [drawnLines, gl.LINES]]) {
      if (!shape.count) continue;
      gl.bindVertexArray(shape.array);
      gl.drawArrays(kind, 0, shape.count);
    }
    canvas.dataset.drawn = `${drawnPoints.count} points, ${cuboids.length} cuboids`;
  }

  const turn = (across, up) => {
    eye.turn += across;
    eye.tilt = Math.min(Math.PI / 2, Math.max(0.02, eye.tilt + up));
    draw();
  };
  const approach = (factor) => { eye.distance = Math.min(500, Math.max(2, eye.distance * factor)); draw(); };
  const keys = {
    ArrowLeft: () => turn(STEP, 0), ArrowRight: () => turn(-STEP, 0), ArrowUp: () => turn(0, STEP),
    ArrowDown: () => turn(0, -STEP), "+": () => approach(0.8), "=": () => approach(0.8), "-": () => approach(1.25),
  };
  canvas.addEventListener("keydown", (event) => { if (keys[event.key]) { keys[event.key](); event.preventDefault(); } });
  canvas.addEventListener("wheel", (event) => { approach(event.deltaY > 0 ? 1.1 : 0.9); event.preventDefault(); }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => { if (event.buttons === 1) turn(event.movementX / -200, event.movementY / 200); });
  new ResizeObserver(draw).observe(canvas);
  draw();
  state.textContent = `${cloud.length / SIZE} points, ${cuboids.length} cuboids. Arrow keys turn the scene, + and - come closer.`
    + (canvas.dataset.points && !cloud.length ? " The points of this frame cannot be shown." : "");
}

const startAll = (root) => root.querySelectorAll("canvas[data-cuboids]").forEach(start);
document.addEventListener("console:place", ({ target }) => startAll(target));
startAll(document);
