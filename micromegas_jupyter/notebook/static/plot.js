// Puts the drawing of a picture into the page, where it takes the page's colours; the picture is as good without.
// Comments have lines of their own: a copy without them is saved with each plot.

(() => {
  const script = document.currentScript;
  const root = script && script.closest(".micromegas-plot");
  const image = root && root.querySelector("img");
  if (!image) return;
  const text = decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
  const drawing = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (drawing.localName === "svg") image.replaceWith(document.importNode(drawing, true));
})();
