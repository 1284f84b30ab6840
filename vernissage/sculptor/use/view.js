"use strict";

// The page's script: decodes the frames, builds meshes of what can be seen, and steers the camera. The global THREE comes before it.

(() => {
  const LIGHT = { x: 0.83, z: 0.68, up: 1, down: 0.5 };
  const CREASE = 0.075, ROOF = 0.035, DEEPEST_ROOF = 7, UNEVEN = 0.045;
  const FOG = [0.5, 0.56, 0.64], VEIL = { x: 0.075, z: 0.1, up: 0.05, down: 0.09 }, SHADOW = 0.4, SHADOW_HEIGHT = 10, SHADOW_ROUND = 3;
  const FIELD = 35, TURN = 0.008, STEEPEST = 0.02, PLAY_MS = 420, HOME = [0.72, 1.2];

  const page = JSON.parse(document.getElementById("page-data").textContent);
  const [stops, height, depth, width] = page.shape;
  const element = (id) => document.getElementById(id);

  async function unpacked() {
    const packed = Uint8Array.from(atob(page.data), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const grids = page.bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
    const size = height * depth * width;
    if (grids.length !== stops * size) throw new Error(`${grids.length} voxels, expected ${stops * size}`);
    return Array.from({ length: stops }, (_, stop) => grids.subarray(stop * size, (stop + 1) * size));
  }

  // A copy with a ring of air around it, without what is hidden or above the cut: no neighbour needs a check of bounds.
  const strides = [1, (width + 2) * (depth + 2), width + 2];
  function shownVoxels(grid, layers, hidden) {
    const solid = new Uint16Array((height + 2) * (depth + 2) * (width + 2));
    const fog = new Uint8Array(solid.length);
    for (let y = 0, from = 0; y < Math.min(height, layers); y++) {
      for (let z = 0; z < depth; z++) {
        let to = (y + 1) * strides[1] + (z + 1) * strides[2] + 1;
        for (let x = 0; x < width; x++, from++, to++) {
          const kind = grid[from];
          if (kind === 0 || hidden.has(kind)) continue;
          if (kind === page.undecided) fog[to] = 1;
          else solid[to] = kind;
        }
      }
    }
    return { solid, fog };
  }

  // How many blocks stand above each voxel, up to a few: it is darker under a crown.
  function roofs(solid) {
    const roof = new Uint8Array(solid.length);
    for (let place = solid.length - strides[1] - 1; place >= 0; place--) {
      const above = place + strides[1];
      roof[place] = Math.min(DEEPEST_ROOF, roof[above] + (solid[above] ? 1 : 0));
    }
    return roof;
  }

  function eachFace(filled, closed, visit) {
    for (let y = 0; y < height; y++) {
      for (let z = 0; z < depth; z++) {
        let place = (y + 1) * strides[1] + (z + 1) * strides[2] + 1;
        for (let x = 0; x < width; x++, place++) {
          if (!filled[place]) continue;
          for (let axis = 0; axis < 3; axis++) {
            for (let side = -1; side <= 1; side += 2) {
              const front = place + side * strides[axis];
              if (!filled[front] && !closed[front]) visit(x, y, z, place, front, axis, side);
            }
          }
        }
      }
    }
  }

  const CORNERS = [[0, 0], [1, 0], [1, 1], [0, 1]];
  function faceMesh(filled, closed, material, paint) {
    let count = 0;
    eachFace(filled, closed, () => { count++; });
    const places = new Int16Array(count * 12), colours = new Uint8Array(count * 16), indices = new Uint32Array(count * 6);
    const corner = [0, 0, 0], light = [0, 0, 0, 0];
    let face = 0;
    eachFace(filled, closed, (x, y, z, place, front, axis, side) => {
      const first = (axis + 1) % 3, second = (axis + 2) % 3;
      CORNERS.forEach(([u, v], number) => {
        corner[0] = x; corner[1] = y; corner[2] = z;
        corner[axis] += side > 0 ? 1 : 0;
        corner[first] += u;
        corner[second] += v;
        places.set(corner, face * 12 + number * 3);
        const colour = paint(place, front, axis, side, (u ? 1 : -1) * strides[first], (v ? 1 : -1) * strides[second]);
        light[number] = colour[4];
        for (let part = 0; part < 4; part++) colours[face * 16 + number * 4 + part] = colour[part];
      });
      // Split along the lighter diagonal, or creases would look notched; seen from outside the order is against the clock.
      const order = light[0] + light[2] >= light[1] + light[3] ? [0, 1, 2, 0, 2, 3] : [1, 2, 3, 1, 3, 0];
      if (side < 0) order.reverse();
      order.forEach((number, at) => { indices[face * 6 + at] = face * 4 + number; });
      face++;
    });
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(places, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(colours, 4, true));
    geometry.setIndex(new THREE.BufferAttribute(indices, 1));
    return new THREE.Mesh(geometry, material);
  }

  function facing(values, axis, side) {
    if (axis === 1) return side > 0 ? values.up : values.down;
    return axis === 0 ? values.x : values.z;
  }

  function uneven(place) {
    let mixed = Math.imul(place, 0x9e3779b1);
    mixed ^= mixed >>> 15;
    return 1 + UNEVEN * (((Math.imul(mixed, 0x85ebca6b) >>> 8) & 1023) / 511.5 - 1);
  }

  function solidMesh(solid, material) {
    const roof = roofs(solid), colour = [0, 0, 0, 255, 1];
    return faceMesh(solid, solid, material, (place, front, axis, side, first, second) => {
      const side1 = front + first, side2 = front + second, across = front + first + second;
      const crease = (solid[side1] ? 1 : 0) + (solid[side2] ? 1 : 0) + (solid[across] ? 1 : 0);
      const covered = (roof[front] + roof[side1] + roof[side2] + roof[across]) / 4;
      const light = facing(LIGHT, axis, side) * (1 - CREASE * crease) * (1 - ROOF * covered);
      const levels = page.kinds[solid[place]].colour, shade = light * uneven(place);
      for (let part = 0; part < 3; part++) colour[part] = Math.min(255, levels[part] * shade);
      colour[4] = light;
      return colour;
    });
  }

  function fogMesh(fog, solid, material) {
    const colour = [...FOG.map((share) => share * 255), 0, 1];
    return faceMesh(fog, solid, material, (place, front, axis, side) => {
      colour[3] = 255 * facing(VEIL, axis, side);
      return colour;
    });
  }

  // A soft shadow on the ground, the lighter the higher above it the blocks are.
  function shadowMesh(solid, material) {
    const columns = width + 2 * SHADOW_ROUND, rows = depth + 2 * SHADOW_ROUND;
    let dark = new Float32Array(columns * rows);
    for (let z = 0; z < depth; z++) {
      for (let x = 0; x < width; x++) {
        let y = 0;
        while (y < height && !solid[(y + 1) * strides[1] + (z + 1) * strides[2] + x + 1]) y++;
        if (y < height) dark[(z + SHADOW_ROUND) * columns + x + SHADOW_ROUND] = Math.exp(-y / SHADOW_HEIGHT);
      }
    }
    for (let pass = 0; pass < 2; pass++) dark = smoothed(dark, columns, rows);
    const places = new Float32Array(columns * rows * 3), colours = new Float32Array(columns * rows * 4), indices = [];
    for (let z = 0; z < rows; z++) {
      for (let x = 0; x < columns; x++) {
        const at = z * columns + x;
        places.set([x - SHADOW_ROUND + 0.5, -0.02, z - SHADOW_ROUND + 0.5], at * 3);
        colours[at * 4 + 3] = SHADOW * dark[at];
        if (x && z) indices.push(at, at - columns, at - columns - 1, at, at - columns - 1, at - 1);
      }
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(places, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(colours, 4));
    geometry.setIndex(indices);
    return new THREE.Mesh(geometry, material);
  }

  function smoothed(values, columns, rows) {
    const result = new Float32Array(values.length);
    for (let z = 1; z < rows - 1; z++) {
      for (let x = 1; x < columns - 1; x++) {
        const at = z * columns + x;
        for (let down = -1; down <= 1; down++) {
          for (let across = -1; across <= 1; across++) {
            result[at] += values[at + down * columns + across] * (2 - Math.abs(down)) * (2 - Math.abs(across)) / 16;
          }
        }
      }
    }
    return result;
  }

  class Stage {
    constructor(canvas, last) {
      this.canvas = canvas;
      this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
      // Colours are meant as they are shown.
      this.renderer.outputColorSpace = "srgb-linear";
      this.scene = new THREE.Scene();
      this.camera = new THREE.PerspectiveCamera(FIELD, 1, 0.5, 4000);
      const material = (options) => new THREE.MeshBasicMaterial({ vertexColors: true, ...options });
      this.solid = material({});
      this.veil = material({ transparent: true, depthWrite: false });
      this.meshes = [];
      this.box = boundsOf(last);
      this.home();
      new ResizeObserver(() => this.fit()).observe(canvas.parentElement);
      this.fit();
    }

    home() {
      const [low, high] = this.box;
      this.target = low.map((value, axis) => (value + high[axis]) / 2);
      [this.across, this.up] = HOME;
      this.away = 0;
      this.draw();
    }

    // How far away the whole structure fits in, seen from where it is first seen, whatever the shape of the window.
    nearest() {
      const [low, high] = this.box, half = Math.tan((FIELD / 2) * Math.PI / 180), wide = half * this.camera.aspect;
      const [sin, cos, flat, rise] = [Math.sin(HOME[0]), Math.cos(HOME[0]), Math.sin(HOME[1]), Math.cos(HOME[1])];
      let away = 0;
      for (let corner = 0; corner < 8; corner++) {
        const [x, y, z] = low.map((value, axis) => (corner >> axis & 1 ? 0.5 : -0.5) * (high[axis] - value));
        const towards = flat * (x * sin + z * cos) + rise * y, right = x * cos - z * sin;
        const upwards = flat * y - rise * (x * sin + z * cos);
        away = Math.max(away, towards + Math.max(Math.abs(upwards) / half, Math.abs(right) / wide));
      }
      return 1.1 * away;
    }

    fit() {
      const { clientWidth, clientHeight } = this.canvas.parentElement;
      this.renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
      this.renderer.setSize(clientWidth, clientHeight, false);
      this.camera.aspect = Math.max(1, clientWidth) / Math.max(1, clientHeight);
      this.camera.updateProjectionMatrix();
      // A canvas of a new size is empty: not until the next frame.
      this.render();
    }

    show(grid, layers, hidden) {
      for (const mesh of this.meshes) {
        this.scene.remove(mesh);
        mesh.geometry.dispose();
      }
      const { solid, fog } = shownVoxels(grid, layers, hidden);
      this.meshes = [shadowMesh(solid, this.veil), solidMesh(solid, this.solid), fogMesh(fog, solid, this.veil)];
      this.meshes.forEach((mesh, number) => {
        mesh.renderOrder = number;
        this.scene.add(mesh);
      });
      this.draw();
    }

    turn(across, up) {
      this.across -= across * TURN;
      this.up = Math.min(Math.PI - STEEPEST, Math.max(STEEPEST, this.up - up * TURN));
      this.draw();
    }

    zoom(steps) {
      this.away = Math.min(2, Math.max(-2.2, this.away + steps));
      this.draw();
    }

    move(across, up) {
      const share = 2 * this.distance() * Math.tan((FIELD / 2) * Math.PI / 180) / Math.max(1, this.canvas.clientHeight);
      const matrix = this.camera.matrixWorld.elements;
      for (let axis = 0; axis < 3; axis++) this.target[axis] += (-across * matrix[axis] + up * matrix[4 + axis]) * share;
      this.draw();
    }

    distance() {
      return this.nearest() * Math.exp(this.away);
    }

    draw() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.render();
      });
    }

    render() {
      const away = this.distance(), [x, y, z] = this.target, flat = Math.sin(this.up) * away;
      this.camera.position.set(x + flat * Math.sin(this.across), y + Math.cos(this.up) * away, z + flat * Math.cos(this.across));
      this.camera.lookAt(x, y, z);
      this.renderer.render(this.scene, this.camera);
    }
  }

  function boundsOf(grid) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (let y = 0, at = 0; y < height; y++) {
      for (let z = 0; z < depth; z++) {
        for (let x = 0; x < width; x++, at++) {
          if (!grid[at]) continue;
          [x, y, z].forEach((value, axis) => {
            low[axis] = Math.min(low[axis], value);
            high[axis] = Math.max(high[axis], value + 1);
          });
        }
      }
    }
    return low[0] < high[0] ? [low, high] : [[0, 0, 0], [width, height, depth]];
  }

  function steer(stage) {
    const { canvas } = stage, fingers = new Map();
    const spread = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) || 1 });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      const pair = fingers.size === 2 ? spread([...fingers.values()]) : null;
      fingers.set(event.pointerId, now);
      if (pair) {
        const moved = spread([...fingers.values()]);
        stage.move(moved.x - pair.x, moved.y - pair.y);
        stage.zoom(Math.log(pair.apart / moved.apart));
      } else if (event.shiftKey || event.buttons & 6) stage.move(now.x - before.x, now.y - before.y);
      else stage.turn(now.x - before.x, now.y - before.y);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => stage.home());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      stage.zoom(Math.sign(event.deltaY) * Math.min(0.25, Math.abs(event.deltaY) * (event.deltaMode ? 0.04 : 0.0012)));
    }, { passive: false });
  }

  class Controls {
    constructor(stage, grids) {
      this.stage = stage;
      this.grids = grids;
      this.hidden = new Set();
      this.time = element("time");
      this.cut = element("cut");
      this.boxes = [...document.querySelectorAll("#legend input")];
      const asked = new URLSearchParams(location.hash.slice(1));
      this.time.value = asked.get("frame") ?? stops - 1;
      this.cut.value = asked.get("layers") ?? height;
      this.time.addEventListener("input", () => { this.pause(); this.show(); });
      this.cut.addEventListener("input", () => this.show());
      this.boxes.forEach((box) => box.addEventListener("change", () => this.toggle(box)));
      element("play").addEventListener("click", () => this.play());
      element("home").addEventListener("click", () => this.stage.home());
      document.addEventListener("keydown", (event) => this.key(event));
      this.show();
    }

    toggle(box) {
      if (box.checked) this.hidden.delete(Number(box.value));
      else this.hidden.add(Number(box.value));
      this.show();
    }

    show() {
      const stop = Number(this.time.value), layers = Number(this.cut.value), grid = this.grids[stop];
      const counts = new Uint32Array(page.kinds.length);
      for (const kind of grid) counts[kind]++;
      for (const box of this.boxes) {
        const row = box.closest("li");
        row.querySelector("output").textContent = counts[box.value].toLocaleString("en");
        row.classList.toggle("none", !counts[box.value]);
      }
      const left = page.undecided < 0 ? 0 : counts[page.undecided];
      const open = left ? `, ${left.toLocaleString("en")} undecided` : "";
      element("time-text").textContent = stop === stops - 1 ? "finished" : `${stop + 1} of ${stops - 1}${open}`;
      element("cut-text").textContent = layers === height ? `all ${height}` : `${layers} of ${height}`;
      this.stage.show(grid, layers, this.hidden);
    }

    step(input, by) {
      const before = input.value;
      input.value = Number(before) + by;
      if (input.value !== before) this.show();
      return input.value !== before;
    }

    play() {
      if (this.timer) return this.pause();
      if (Number(this.time.value) === stops - 1) {
        this.time.value = 0;
        this.show();
      }
      element("play").textContent = "Pause";
      this.timer = setInterval(() => { if (!this.step(this.time, 1)) this.pause(); }, PLAY_MS);
      return undefined;
    }

    pause() {
      clearInterval(this.timer);
      this.timer = 0;
      element("play").textContent = "Play";
    }

    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const on = event.target instanceof HTMLElement ? event.target.tagName : "";
      const arrows = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1],
      }[event.key];
      if (arrows && event.shiftKey) this.stage.turn(arrows[0] * 20, -arrows[1] * 20);
      else if (arrows && on !== "INPUT") this.arrow(...arrows);
      else if (event.key === " " && stops > 1 && on !== "INPUT" && on !== "BUTTON") this.play();
      else if (event.key === "+" || event.key === "-") this.stage.zoom(event.key === "+" ? -0.15 : 0.15);
      else if (event.key === "0") this.stage.home();
      else return;
      event.preventDefault();
    }

    arrow(frames, layers) {
      if (layers) this.step(this.cut, layers);
      else if (stops > 1) {
        this.pause();
        this.step(this.time, frames);
      } else this.stage.turn(frames * 20, 0);
    }
  }

  async function start() {
    const root = document.documentElement;
    try {
      const grids = await unpacked();
      const stage = new Stage(element("canvas"), grids[stops - 1]);
      steer(stage);
      root.classList.add("live");
      new Controls(stage, grids);
      stage.fit();
      root.dataset.state = "ready";
    } catch (error) {
      root.classList.remove("live");
      root.dataset.state = "still";
      element("reason").textContent = `This browser cannot draw it in three dimensions (${error.message}); here is a picture.`;
    }
  }

  start();
})();
