"use strict";
// COMPARE comes from images.js: {title, note, images: [{name, folder, width, height, tile, levels}],
// layers: [{name, file, x, y, width, height}]}, layers in widths of an image.
(function () {
  const byId = (id) => document.getElementById(id);
  const images = COMPARE.images;
  const layers = COMPARE.layers || [];

  function source(image) {
    // Levels are numbered as in Deep Zoom; the coarsest ones are left out.
    const maxLevel = Math.ceil(Math.log2(Math.max(image.width, image.height, 2)));
    return {
      width: image.width,
      height: image.height,
      tileSize: image.tile,
      tileOverlap: 0,
      minLevel: maxLevel - image.levels + 1,
      maxLevel: maxLevel,
      getTileUrl: (level, x, y) =>
        image.folder + "/" + (maxLevel - level) + "/" + x + "_" + y + ".jpg",
    };
  }

  function viewer(element) {
    return OpenSeadragon({
      element: element,
      drawer: "canvas", // works on files opened from disk, where WebGL may not read pictures
      showNavigationControl: false,
      imageSmoothingEnabled: true,
      maxZoomPixelRatio: 16,
      visibilityRatio: 0.5,
      animationTime: 0.4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
  }

  const left = viewer(byId("left"));
  const right = viewer(byId("right"));
  let swipe = 0.5;
  let over = null; // the picture drawn over the other, right of the divider
  let busy = false;
  const maps = new Map(); // viewer -> the map drawn over it

  function width() {
    return byId("left").clientWidth;
  }

  function clip() {
    byId("divider").style.left = byId("handle").style.left = swipe * width() + "px";
    byId("handle").setAttribute("aria-valuenow", String(Math.round(100 * swipe)));
    if (!over) return;
    const size = over.getContentSize();
    const edge = left.viewport.pointFromPixel(new OpenSeadragon.Point(swipe * width(), 0), true);
    const x = Math.min(size.x, Math.max(0, over.viewportToImageCoordinates(edge, true).x));
    over.setOpacity(x >= size.x ? 0 : 1);
    over.setClip(new OpenSeadragon.Rect(x, 0, Math.max(1e-3, size.x - x), size.y));
  }

  function lay(target) {
    const old = maps.get(target);
    if (old) target.world.removeItem(old);
    maps.delete(target);
    const wanted = byId("layer").value;
    if (wanted === "") return;
    const layer = layers[wanted];
    target.addTiledImage({
      tileSource: { type: "image", url: layer.file, buildPyramid: false },
      x: layer.x, y: layer.y, width: layer.width,
      opacity: byId("strength").value / 100,
      success: (event) => {
        // Another one may have been asked for meanwhile.
        if (byId("layer").value !== wanted || maps.has(target)) {
          target.world.removeItem(event.item);
          return;
        }
        maps.set(target, event.item);
        target.world.setItemIndex(event.item, target.world.getItemCount() - 1);
        document.body.dataset.map = layer.name;
      },
    });
  }

  function follow(from, to) {
    if (busy || !document.body.classList.contains("side")) return;
    busy = true;
    to.viewport.zoomTo(from.viewport.getZoom(true), null, true);
    to.viewport.panTo(from.viewport.getCenter(true), true);
    busy = false;
  }

  function report() {
    const item = left.world.getItemAt(0);
    if (!item) return;
    const ratio = item.viewportToImageZoom(left.viewport.getZoom(true));
    byId("zoom").textContent = (100 * ratio).toFixed(0) + " %";
  }

  function show() {
    const side = byId("mode").value === "side";
    document.body.classList.toggle("side", side);
    const a = images[byId("a").value];
    const b = images[byId("b").value];
    byId("tag-a").textContent = a.name;
    byId("tag-b").textContent = side ? "" : b.name;
    byId("tag-b").hidden = side;
    byId("tag-c").textContent = b.name;
    const bounds = left.world.getItemCount() ? left.viewport.getBounds(true) : null;
    over = null;
    maps.clear();
    left.world.removeAll();
    right.world.removeAll();
    const restore = () => bounds && left.viewport.fitBounds(bounds, true);
    left.addTiledImage({ tileSource: source(a), x: 0, y: 0, width: 1, success: restore });
    if (side) {
      right.addTiledImage({
        tileSource: source(b), x: 0, y: 0, width: 1,
        success: () => { restore(); follow(left, right); lay(left); lay(right); },
      });
    } else {
      left.addTiledImage({
        tileSource: source(b), x: 0, y: 0, width: 1,
        success: (event) => { over = event.item; clip(); document.body.dataset.ready = "yes"; lay(left); },
      });
    }
  }

  for (const id of ["a", "b"]) {
    images.forEach((image, i) => byId(id).add(new Option(image.name, String(i))));
    byId(id).addEventListener("change", show);
  }
  byId("mode").addEventListener("change", show);
  layers.forEach((layer, i) => byId("layer").add(new Option(layer.name, String(i))));
  byId("map").hidden = !layers.length;
  byId("layer").addEventListener("change", () => {
    lay(left);
    if (byId("mode").value === "side") lay(right);
  });
  byId("strength").addEventListener("input", () => {
    for (const item of maps.values()) item.setOpacity(byId("strength").value / 100);
  });
  // index.html#map=misfit opens with that map.
  const asked = layers.findIndex((layer) => location.hash === "#map=" + encodeURIComponent(layer.name));
  if (asked >= 0) byId("layer").value = String(asked);
  byId("title").textContent = COMPARE.title;
  byId("note").textContent = COMPARE.note;
  byId("a").value = "0";
  byId("b").value = String(Math.min(1, images.length - 1));

  for (const name of ["animation", "update-viewport", "resize"]) {
    left.addHandler(name, () => { clip(); report(); follow(left, right); });
    right.addHandler(name, () => follow(right, left));
  }
  const move = (event) => {
    const box = byId("left").getBoundingClientRect();
    swipe = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    clip();
  };
  const handle = byId("handle");
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.addEventListener("pointermove", move);
  });
  handle.addEventListener("pointerup", () => handle.removeEventListener("pointermove", move));
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    swipe = Math.min(1, Math.max(0, swipe + step));
    clip();
  });
  byId("in").addEventListener("click", () => left.viewport.zoomBy(1.5));
  byId("out").addEventListener("click", () => left.viewport.zoomBy(1 / 1.5));
  byId("home").addEventListener("click", () => left.viewport.goHome());
  byId("full").addEventListener("click", () => {
    const item = left.world.getItemAt(0);
    if (item) left.viewport.zoomTo(item.imageToViewportZoom(1));
  });
  show();
})();
